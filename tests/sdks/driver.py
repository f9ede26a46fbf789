"""Runs a Python SDK unchanged. Its requests for tokens go to wxtoken and all others to WeChat's stand-in, as a reverse proxy
would send them. Without WXTOKEN_URL they go where the hosts file leads.

For each line `call` on stdin it makes an API call, and prints `ok`, or `error` and the errcode. After `later SECONDS` the
SDK's clock is as much later. For `crowd` fifty clients, each with an SDK of its own, make a call at once; it prints what comes
of the calls, each result once.
"""

import os
import re
import sys
import tempfile
import threading
import time
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

WXTOKEN_URL = os.environ.get("WXTOKEN_URL")
WECHAT_API = os.environ.get("WECHAT_API")
APPID = os.environ["WXTOKEN_APPID"]
KEY = os.environ["WXTOKEN_KEY"]

WECHAT_HOSTS = ("api.weixin.qq.com", "qyapi.weixin.qq.com")
TOKEN_PATHS = ("/cgi-bin/token", "/cgi-bin/stable_token", "/cgi-bin/gettoken")

send = HTTPAdapter.send


def send_routed(self, request, *args, **kwargs):
    url = urlsplit(request.url)
    assert url.hostname in WECHAT_HOSTS, "an SDK asks WeChat and nobody else"
    base = WXTOKEN_URL if url.path in TOKEN_PATHS else WECHAT_API
    request.url = f"{base}{url.path}?{url.query}"
    return send(self, request, *args, **kwargs)


if WXTOKEN_URL:
    HTTPAdapter.send = send_routed

later = 0.0
real_time = time.time
time.time = lambda: real_time() + later


def wechatpy():
    from wechatpy import WeChatClient

    return WeChatClient(APPID, KEY, timeout=10).misc.get_wechat_ips


def wechatpy_work():
    try:
        from wechatpy.work import WeChatClient
    except ImportError:
        from wechatpy.enterprise import WeChatClient

    return WeChatClient(APPID, KEY, timeout=10).misc.get_wechat_ips


def weixin_python():
    from weixin.mp import WeixinMP

    directory = tempfile.mkdtemp(dir=os.environ["TMPDIR"])
    mp = WeixinMP(APPID, KEY, os.path.join(directory, "token"), os.path.join(directory, "ticket"))
    return lambda: mp.get("/getcallbackip").ip_list


def pywe_token():
    from pywe_token import Token

    token = Token(APPID, KEY)

    def call():
        # The SDK is for tokens only.
        params = {"access_token": token.access_token()}
        url = "https://api.weixin.qq.com/cgi-bin/getcallbackip"
        answer = requests.get(url, params=params, timeout=10).json()
        if "ip_list" not in answer:
            raise RuntimeError(answer)
        return answer["ip_list"]

    return call


def werobot():
    from werobot.client import Client

    client = Client({"APP_ID": APPID, "APP_SECRET": KEY})
    return lambda: client.get_ip_list()["ip_list"]


def errcode(err):
    """The errcode of an SDK's exception, or its name."""
    found = re.search(r"errcode\W*?(-?\d+)|\A(-?\d+)\b", str(err))
    code = getattr(err, "errcode", None) or (found and next(filter(None, found.groups())))
    return code or type(err).__name__


make = {
    "wechatpy": wechatpy,
    "wechatpy work": wechatpy_work,
    "weixin-python": weixin_python,
    "pywe-token": pywe_token,
    "werobot": werobot,
}[sys.argv[1]]


def result(call):
    try:
        return "ok" if call() else "nothing"
    except Exception as err:
        return f"error {errcode(err)}"


def at_once(calls):
    """The results of these calls, which start together, each result once."""
    results, barrier = set(), threading.Barrier(len(calls))

    def run(call):
        barrier.wait()
        for _ in range(5):
            found = result(call)
            # On a busy machine fifty handshakes may take longer than either side waits. That is no answer.
            if not re.fullmatch(r"error [A-Za-z]+", found):
                break
        results.add(found)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ", ".join(sorted(results))


call, crowd = make(), []
for line in sys.stdin:
    word, *arguments = line.split()
    if word == "later":
        later += float(arguments[0])
    elif word == "crowd":
        crowd = crowd or [make() for _ in range(50)]
        print(at_once(crowd), flush=True)
    else:
        print(result(call), flush=True)
