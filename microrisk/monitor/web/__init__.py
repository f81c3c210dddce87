"""The page: a small web server over the hub, and plain files that need neither build nor network.

`serve.open_server(hub, ...)` is the door for the command line, `app.create_app` for another ASGI server.
"""
