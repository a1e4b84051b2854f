"""As much of S3 as a benchmark needs: how large a prefix is, and emptying it. Signature version 4, path style."""

import hashlib
import hmac
import http.client
import urllib.parse
import xml.etree.ElementTree as ElementTree
from datetime import datetime, timezone


class Bucket:
    """A bucket behind an endpoint."""

    def __init__(self, endpoint, name, region, key_id, secret):
        self.url = urllib.parse.urlsplit(endpoint)
        self.name, self.region, self.key_id, self.secret = name, region, key_id, secret

    def objects(self, prefix):
        """Keys and sizes below a prefix."""
        token = None
        while True:
            query = {"list-type": "2", "prefix": prefix, **({"continuation-token": token} if token else {})}
            root = ElementTree.fromstring(self._request("GET", f"/{self.name}", query))
            space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
            for entry in root.iter(f"{space}Contents"):
                yield entry.findtext(f"{space}Key"), int(entry.findtext(f"{space}Size"))
            token = root.findtext(f"{space}NextContinuationToken")
            if not token:
                return

    def size(self, prefix):
        """Bytes below a prefix."""
        return sum(size for _, size in self.objects(prefix))

    def clear(self, prefix):
        """Deletes everything below a prefix."""
        for key, _ in list(self.objects(prefix)):
            self._request("DELETE", f"/{self.name}/{key}", {})

    def _request(self, method, path, query):
        now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        path = urllib.parse.quote(path, safe="/-_.~")
        encoded = "&".join(f"{quote(key)}={quote(value)}" for key, value in sorted(query.items()))
        empty = hashlib.sha256(b"").hexdigest()
        headers = {"host": self.url.netloc, "x-amz-content-sha256": empty, "x-amz-date": now}
        names = ";".join(sorted(headers))
        listed = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        canonical = "\n".join((method, path, encoded, listed, names, empty))
        scope = f"{now[:8]}/{self.region}/s3/aws4_request"
        text = "\n".join(("AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()))
        key = f"AWS4{self.secret}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        credential = f"{self.key_id}/{scope}"
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
        )
        kind = http.client.HTTPSConnection if self.url.scheme == "https" else http.client.HTTPConnection
        connection = kind(self.url.netloc, timeout=60)
        try:
            connection.request(method, path + (f"?{encoded}" if encoded else ""), headers=headers)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            raise SystemExit(f"the bucket answers {method} with {answer.status} {answer.reason}")
        return body


def quote(text):
    """As the signature wants it."""
    return urllib.parse.quote(text, safe="-_.~")
