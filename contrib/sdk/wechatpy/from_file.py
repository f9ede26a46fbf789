"""wechatpy with the token that wxtoken published on this host: read anew for each call, never kept, never asked for."""

import json
import os
import time
from datetime import datetime

from wechatpy import WeChatClient
from wechatpy.session.memorystorage import MemoryStorage

WXTOKEN_FILE = os.environ.get("WXTOKEN_FILE", "/var/lib/wxtoken/default.json")
WECHAT_API = os.environ.get("WECHAT_API", "https://api.weixin.qq.com")


class WxtokenFile(MemoryStorage):
    """The token is the file's; what else wechatpy stores, tickets for one, stays in memory."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def get(self, key, default=None):
        if not key.endswith("_access_token"):
            return super().get(key, default)
        # Opened by its name each time: it is replaced whole, and never written in place.
        with open(self.path, encoding="utf-8") as file:
            document = json.load(file)
        created_at = datetime.fromisoformat(document["created_at"].replace("Z", "+00:00"))
        if created_at.timestamp() + document["expires_in"] <= time.time():
            raise RuntimeError(f"{self.path}: the token has expired; is `wxtoken fetch` running?")
        return document["access_token"]


class FileClient(WeChatClient):
    API_BASE_URL = f"{WECHAT_API}/cgi-bin/"


# No secret, so nothing to retry with: a rejected token is an exception here, and `wxtoken fetch --rejected` its cure.
client = FileClient(
    os.environ["WXTOKEN_APPID"], "", session=WxtokenFile(WXTOKEN_FILE), timeout=10, auto_retry=False
)

if __name__ == "__main__":
    print(client.misc.get_wechat_ips())
