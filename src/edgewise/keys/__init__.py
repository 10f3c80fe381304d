"""Keys in files: made, kept behind a passphrase, loaded, used to sign and to verify.

Both places that sign use it: `forge` seals bundles, `fleet` signs the repository; the device only
verifies. A key pair is two PEM files, `NAME.pem` (PKCS#8, encrypted) and `NAME.pub`. Keys that live in
hardware or in a key service are named by a URI instead, and opened by securesystemslib's signers.

1. `pair`        the two kinds of key, what signs and what verifies
2. `files`       the two PEM files of a pair
3. `passphrase`  where a passphrase comes from: a file, the environment, a prompt
"""
