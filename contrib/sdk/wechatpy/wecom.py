"""wechatpy for WeCom (企业微信) with tokens from `wxtoken serve`: redirects the SDK's own token request."""

import os

from wechatpy.enterprise import WeChatClient  # in wechatpy 2: from wechatpy.work

WXTOKEN_URL = os.environ.get("WXTOKEN_URL", "http://127.0.0.1:7200")
WECHAT_API = os.environ.get("WECHAT_API", "https://qyapi.weixin.qq.com")


class WxtokenClient(WeChatClient):
    """In place of the app's secret, pass the key that `wxtoken key` printed."""

    API_BASE_URL = f"{WECHAT_API}/cgi-bin/"

    def fetch_access_token(self):
        # wechatpy calls this for the first token, in the last minute of one, and when WeCom rejects one.
        return self._fetch_access_token(
            url=f"{WXTOKEN_URL}/cgi-bin/gettoken",
            params={"corpid": self.corp_id, "corpsecret": self.secret},
        )


client = WxtokenClient(os.environ["WXTOKEN_APPID"], os.environ["WXTOKEN_KEY"], timeout=10)

if __name__ == "__main__":
    print(client.misc.get_wechat_ips())
