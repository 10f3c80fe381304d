"""What a device believes, and why: the client side of the signed repository.

The checks of the update framework are python-tuf's (`ngclient`); what is here is what a device adds: a
root of trust that never comes from its own cache, a transport that cannot be slowed down or filled up,
a clock that does not go back, downloads that resume, and the director's say beside the image repository's.

1. `pace`       how slow a server may be
2. `transport`  HTTP over standard-library sockets, every byte under that guard
3. `fetcher`    the transport in the form that python-tuf asks for, with ETags for the timestamp
4. `clock`      the latest time that was trusted
5. `refusals`   each failure of python-tuf as one of our errors
6. `client`     one repository: refresh, find, download
7. `download`   one file: resumed, capped, verified, then renamed into its place
8. `director`   what to run: the director and the image repository must agree
9. `writing`    files that are whole or absent after a power cut

python-tuf is imported here only, and only when a device updates: importing `edgewise.device` stays light.
"""
