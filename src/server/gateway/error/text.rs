//! Why an admitted call has no answer of WeChat's, and what to do about it: the texts.

use crate::message::{notes, texts};

notes! {
    CLIENT_LEFT<1> =
        "a client left before WeChat answered its call of {0}; WeChat may have carried it out",
        "调用方在微信应答前断开了连接，微信可能已执行其对 {0} 的请求";
    /// Behind why there is no token.
    NOT_MADE<1> = "{0} (The call was not made.)", "{0}（该请求未发给微信。）";
    TOKEN_REFUSED<1> =
        "{0} (WeChat refuses the token, and it is not replaced now.)", "{0}（微信拒绝该 token，暂时无法更换。）";
}

texts! {
    ASKED_FOR_TOKEN =
        "Ask again: WeChat is being asked for a token.", "请重试：正在向微信获取 token。";
    BODY_TOO_LARGE =
        "Send the body's Content-Length, and it may be larger: without one it may have 24 MiB here.",
        "请携带 Content-Length，即可发送更大的请求体：不带时上限为 24 MiB。";
    BODY_TOO_SLOW =
        "Send the call again, and its body without pauses: that came too slowly, and the call was not made.",
        "请重新发送，并尽快发完请求体：请求体到达过慢，该请求未发给微信。";
    NOT_HTTP =
        "Send a request of HTTP/1.1: the gateway passes on no WebSocket, CONNECT or TRACE.",
        "请使用 HTTP/1.1 请求：网关不转发 WebSocket、CONNECT、TRACE。";
    TRANSFER_CODING =
        "Send the body with Content-Length, or chunked and not compressed.",
        "请用 Content-Length 发送请求体，或不压缩地分块发送。";
    BODY_BROKEN =
        "Send the call again: the body broke off, and the call was not made.",
        "请重新发送：请求体中途断开，该请求未发给微信。";
    OVERLOADED =
        "Repeat the call later: too many large bodies are on their way at once, and it was not made.",
        "请稍后重试：同时上传的大请求体过多，该请求未发给微信。";
    TOO_MANY_CALLS =
        "Repeat the call later: too many calls are waiting for WeChat at once, and it was not made.",
        "请稍后重试：等待微信应答的请求过多，该请求未发给微信。";
    TOO_MANY_OF_CLIENT =
        "Repeat the call later: as many calls of this client as one may have are waiting for WeChat, and it was not made.",
        "请稍后重试：该调用方等待微信应答的请求已达上限，该请求未发给微信。";
    NOT_CONFIGURED =
        "Correct the account's proxy, base_url or ca_file, which the server's log names: the call was not made.",
        "请按服务器日志修正该账号的 proxy、base_url 或 ca_file：该请求未发给微信。";
    UNREACHABLE =
        "Repeat the call: WeChat cannot be reached from the gateway, and nothing was sent to it.",
        "请重试：网关无法连接微信，请求尚未发出。";
    LOOP =
        "Correct the account's base_url, the proxy or the hosts file on the server: the gateway's call came back to it, \
         and did not reach WeChat.",
        "请在服务器上检查该账号的 base_url、代理与 hosts 文件：网关的请求回到了网关自身，未到达微信。";
    NO_ANSWER =
        "Look whether the call had its effect before you repeat it: WeChat's answer did not arrive, and it may have \
         carried the call out.",
        "重试前请先确认结果：未收到微信的应答，该请求可能已被执行。";
    NO_ANSWER_IN_TIME =
        "Look whether the call had its effect before you repeat it: WeChat did not answer in time, and it may have \
         carried the call out.",
        "重试前请先确认结果：微信未在限定时间内应答，该请求可能已被执行。";
    NOT_REPEATED =
        "Send the call again: the token was dead and has been replaced, and a body of this size is not kept.",
        "请重新发送：token 已失效并已更换，网关不保留这么大的请求体。";
}
