"""wechatpy with tokens from `wxtoken serve`: the SDK's own token call, sent elsewhere. No AppSecret here."""

import os

from wechatpy import WeChatClient

WXTOKEN_URL = os.environ.get("WXTOKEN_URL", "http://127.0.0.1:7200")
WECHAT_API = os.environ.get("WECHAT_API", "https://api.weixin.qq.com")


class WxtokenClient(WeChatClient):
    """Where a secret is asked for, give it the key that `wxtoken key` printed."""

    API_BASE_URL = f"{WECHAT_API}/cgi-bin/"

    def fetch_access_token(self):
        # Called for the first token, in the last minute of one, and each time that WeChat rejects one.
        return self._fetch_access_token(
            url=f"{WXTOKEN_URL}/cgi-bin/token",
            params={"grant_type": "client_credential", "appid": self.appid, "secret": self.secret},
        )


client = WxtokenClient(os.environ["WXTOKEN_APPID"], os.environ["WXTOKEN_KEY"], timeout=10)

if __name__ == "__main__":
    print(client.misc.get_wechat_ips())
