"""What the server keeps: rows in a database, files in an object store.

`schema` draws the tables, `database` opens them and hands out transactions, one file per noun reads and writes them,
`objects` keeps files. Every function takes the connection of the caller's transaction, so that a change and its line in
the audit log are one.
"""
