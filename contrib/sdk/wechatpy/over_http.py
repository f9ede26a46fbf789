"""wechatpy with tokens from `wxtoken serve`: redirects the SDK's own token request. Needs no AppSecret."""

import os

from wechatpy import WeChatClient

WXTOKEN_URL = os.environ.get("WXTOKEN_URL", "http://127.0.0.1:7200")
WECHAT_API = os.environ.get("WECHAT_API", "https://api.weixin.qq.com")


class WxtokenClient(WeChatClient):
    """In place of the AppSecret, pass the key that `wxtoken key` printed."""

    API_BASE_URL = f"{WECHAT_API}/cgi-bin/"

    def fetch_access_token(self):
        # wechatpy calls this for the first token, in the last minute of one, and when WeChat rejects one.
        return self._fetch_access_token(
            url=f"{WXTOKEN_URL}/cgi-bin/token",
            params={"grant_type": "client_credential", "appid": self.appid, "secret": self.secret},
        )


client = WxtokenClient(os.environ["WXTOKEN_APPID"], os.environ["WXTOKEN_KEY"], timeout=10)

if __name__ == "__main__":
    print(client.misc.get_wechat_ips())
