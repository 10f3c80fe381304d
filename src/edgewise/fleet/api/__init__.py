"""The HTTP interface: one file per noun, thin over `store`.

`app` puts the routes together, `guard` asks who is there, `problems` says what went wrong.
"""
