"""The signed repository, written: static files in any object store, which any web server or cache can serve.

Two repositories of the update framework lie side by side (Uptane's split):

* the image repository says which bundles exist; root and targets are signed offline, by thresholds;
* the director says which of them each cohort should run; it is signed online, under the same offline root.

1. `files`     the few things needed of a store
2. `edition`   a change of metadata: in memory until all of it is signed, then written in a safe order
3. `image`     products, bundles, rotation of keys, expiry
4. `director`  the policy of each product
5. `online`    the keys a server holds, and keeping snapshot and timestamp fresh
"""
