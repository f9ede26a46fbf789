"""wechatpy with the token that wxtoken published on this host. Reads the file for each call, and keeps no token."""

import json
import os
import time
from datetime import datetime

from wechatpy import WeChatClient
from wechatpy.session.memorystorage import MemoryStorage

WXTOKEN_FILE = os.environ.get("WXTOKEN_FILE", "/var/lib/wxtoken/default.json")
WECHAT_API = os.environ.get("WECHAT_API", "https://api.weixin.qq.com")


class WxtokenFile(MemoryStorage):
    """Reads the token from the file. Other values that wechatpy stores, such as tickets, stay in memory."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def get(self, key, default=None):
        if not key.endswith("_access_token"):
            return super().get(key, default)
        # Opens the file by its name each time, because wxtoken replaces it and never writes in place.
        with open(self.path, encoding="utf-8") as file:
            document = json.load(file)
        created_at = datetime.fromisoformat(document["created_at"].replace("Z", "+00:00"))
        if created_at.timestamp() + document["expires_in"] <= time.time():
            raise RuntimeError(f"{self.path}: the token has expired; is `wxtoken fetch` running?")
        return document["access_token"]


class FileClient(WeChatClient):
    API_BASE_URL = f"{WECHAT_API}/cgi-bin/"


# There is no secret to retry with: a rejected token is an exception; `wxtoken fetch --rejected` has it replaced.
client = FileClient(
    os.environ["WXTOKEN_APPID"], "", session=WxtokenFile(WXTOKEN_FILE), timeout=10, auto_retry=False
)

if __name__ == "__main__":
    print(client.misc.get_wechat_ips())
