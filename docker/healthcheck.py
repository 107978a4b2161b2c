"""Asks the container's server whether it is ready, by HTTP or, where that is not spoken, HTTPS; exit code 0: it is."""

import os
import ssl
import sys
import urllib.request

port = (os.environ.get("EVENTO_ES_HTTP") or "127.0.0.1:3000").rpartition(":")[2]
unchecked = ssl.create_default_context()
unchecked.check_hostname = False  # the certificate names the server as others know it
unchecked.verify_mode = ssl.CERT_NONE
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=unchecked))
for scheme in ("http", "https"):
    try:
        opener.open(f"{scheme}://127.0.0.1:{port}/health/ready", timeout=1.2)
    except Exception as error:
        sys.stderr.write(f"{scheme}: {error}\n")
    else:
        sys.exit(0)
sys.exit(1)
