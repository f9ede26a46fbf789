"""wechatpy with the token that wxtoken published in a Redis, through wechatpy's own RedisStorage. The only change keeps
wechatpy from asking WeChat. In wxtoken's config:

    [redis]
    also = [{ key = "wechatpy:{appid}_access_token", format = "json-string" }]
"""

import os

from redis import Redis
from wechatpy import WeChatClient
from wechatpy.session.redisstorage import RedisStorage

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")
WECHAT_API = os.environ.get("WECHAT_API", "https://api.weixin.qq.com")


class RedisClient(WeChatClient):
    API_BASE_URL = f"{WECHAT_API}/cgi-bin/"

    def fetch_access_token(self):
        # Called if the key is missing: with a secret, wechatpy would ask WeChat and invalidate the shared token.
        raise RuntimeError("no live token in Redis; is `wxtoken fetch` running?")


# The key expires with the token. A rejected token is an exception; `wxtoken fetch --rejected` has it replaced.
redis = Redis.from_url(REDIS_URL, socket_timeout=5)
client = RedisClient(
    os.environ["WXTOKEN_APPID"], "", session=RedisStorage(redis), timeout=10, auto_retry=False
)

if __name__ == "__main__":
    print(client.misc.get_wechat_ips())
