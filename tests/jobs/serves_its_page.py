"""Serves a page on TB_PORT, as a script does that starts TensorBoard."""

import http.server
import os

http.server.HTTPServer(("", int(os.environ["TB_PORT"])), http.server.BaseHTTPRequestHandler).serve_forever()
