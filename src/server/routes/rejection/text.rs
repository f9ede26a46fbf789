//! The fixed texts of refusals, by what is wrong, in both languages: first what to do, then why. They name nothing of this
//! machine.

use crate::message::texts;

texts! {
    // A proxy in between.
    UNTRUSTED_PROXY =
        "Ask the server directly, without proxy headers, or name the proxy in serve's --trusted-proxy: a proxy that is not \
         trusted here forwarded this request.",
        "请直接请求本服务器（不带代理请求头），或在 serve 的 --trusted-proxy 中加入该代理：转发请求的代理未被信任。";
    NO_FORWARDED_CLIENT =
        "Have the proxy set X-Forwarded-For to the client's address: the proxy did not say for whom it asks.",
        "请让代理把 X-Forwarded-For 设为客户端地址：代理未说明请求来自哪个客户端。";
    BAD_FORWARDED_CLIENT =
        "Have the proxy set X-Forwarded-For to the client's IP address: what it sent is none.",
        "请让代理把 X-Forwarded-For 设为客户端的 IP 地址：收到的不是 IP 地址。";
    CONFLICTING_CLIENTS =
        "Have the proxy set one of X-Forwarded-For, Forwarded, X-Real-IP and CF-Connecting-IP, and name every proxy in \
         --trusted-proxy: these headers name different clients.",
        "请让代理只设置 X-Forwarded-For、Forwarded、X-Real-IP、CF-Connecting-IP 之一，并在 --trusted-proxy 中列出每一级代理：\
         这些请求头里的客户端不一致。";

    // The client's certificate.
    EXPIRED_CERTIFICATE =
        "Connect again with a new certificate: the client's certificate has expired.",
        "请换用新的客户端证书重新连接：原证书已过期。";
    FUTURE_CERTIFICATE =
        "Set the clock, here and where the certificate was made: the client's certificate is not valid yet.",
        "请校准服务器与签发主机的时间：客户端证书尚未生效。";
    UNTRUSTED_CERTIFICATE =
        "Connect again with a certificate of a CA in serve's --tls-client-ca: that of the client is of none now.",
        "请使用 serve 的 --tls-client-ca 中的 CA 签发的客户端证书重新连接：当前证书不属于这些 CA。";

    // The key.
    NO_KEY =
        "Send Authorization: Bearer KEY: a key is needed here. On the server, `wxtoken key NAME` makes one.",
        "请携带请求头 Authorization: Bearer 访问密钥：此处需要访问密钥，可在服务器上用 `wxtoken key NAME` 生成。";
    UNKNOWN_KEY =
        "Send the key as `wxtoken key` made it, or get a new one: this one is not in the server's keys file.",
        "请核对访问密钥是否完整，或重新生成：服务器的访问密钥文件里没有它。";
    FORBIDDEN_API =
        "Send the calls to this server, without a token: your key is for calls of some APIs through the gateway only, and a \
         token opens all of them.",
        "请把接口请求发给本服务器，不带 token：您的访问密钥只能经网关调用指定的接口，而 token 可以调用全部接口。";

    // The form of the request.
    SEVERAL_AUTHORIZATIONS =
        "Send one Authorization header: the request has more than one.",
        "请只发送一个 Authorization 请求头：当前有多个。";
    SEVERAL_HOSTS =
        "Send one Host header: the request has more than one.",
        "请只发送一个 Host 请求头：当前有多个。";
    NO_HOST = "Send a Host header: HTTP/1.1 needs one.", "请发送 Host 请求头：HTTP/1.1 必须有。";
    SPEAKS_HTTPS =
        "Ask https://… here: this port speaks https, and this was plain http.",
        "请使用 https://… 访问：该端口只接受 HTTPS，收到的是 HTTP 请求。";
    NOT_HTTP =
        "Send GET /token: this is not HTTP/1.1 as this server understands it.",
        "请发送 GET /token：收到的内容不是本服务器支持的 HTTP/1.1 请求。";
    BODY_BROKE_OFF = "Send the body whole: it broke off.", "请完整发送请求体：请求体中途断开。";
    NO_REPORT =
        r#"Send {"rejected":"TOKEN"}, with the token that WeChat rejected."#,
        r#"请发送 {"rejected":"TOKEN"}，TOKEN 为被微信拒绝的 token。"#;
    NO_TOKEN_REPORTED =
        "Send the access_token alone, as it was handed out: what was rejected is not a token.",
        "请只发送领到的 access_token 原文：报告的内容不是 token。";
    UNKNOWN_PARAMETER =
        "Percent-encode the url, with encodeURIComponent: the query has something besides url, type and agentid.",
        "请用 encodeURIComponent 编码 url：查询参数里有 url、type、agentid 以外的内容。";
    NO_AGENT_CONFIG =
        "Ask for jsapi: tickets of the type agent_config are WeCom's, and this account is not.",
        "请使用 jsapi：agent_config 类型的 ticket 只用于企业微信，该账号不是。";
    NO_APPID =
        "Put appid = … under the account in the server's config: a page needs the account's AppID, which is not known here.",
        "请在服务器配置的该账号下写明 appid：页面签名需要 AppID。";

    // The host, the path, the account.
    MISDIRECTED =
        "Ask for a name that is in serve's --server-name, or add yours there: this server does not answer for this Host; on \
         loopback it answers for localhost, 127.0.0.1 and [::1], too.",
        "请使用 serve 的 --server-name 中的名称访问，或把该名称加入其中：本服务器不响应此 Host；经回环地址还可使用 \
         localhost、127.0.0.1、[::1]。";
    CROSS_SITE =
        "Ask with a program, or open the page of this server at / in the browser: a page of another site made a browser send \
         this request.",
        "请用程序请求，或在浏览器中打开本服务器的首页 /：该请求由其他网站的页面发起。";
    MIRROR_OF_ITSELF =
        "Let `from` of the account name the wxtoken that asks WeChat itself: this server has its tokens from the very one that \
         asks.",
        "请将该账号的 from 改为直接向微信获取 token 的 wxtoken：本服务器的 token 正取自请求方。";
    NO_SUCH_PATH =
        "Ask for /token, /token/ACCOUNT, /ticket/TYPE, /ticket/ACCOUNT/TYPE, /jssdk, /jssdk/ACCOUNT, /healthz, /readyz, \
         /metrics or one of WeChat's paths under /cgi-bin: there is no such path.",
        "请检查路径：可用的有 /token、/token/ACCOUNT、/ticket/TYPE、/ticket/ACCOUNT/TYPE、/jssdk、/jssdk/ACCOUNT、/healthz、\
         /readyz、/metrics 和 /cgi-bin 下的部分微信接口。";
    NO_SUCH_ACCOUNT =
        "Check the account's name, and which accounts the key is for: there is no such account for you here. `wxtoken status` \
         on the server lists them.",
        "请核对账号名，以及访问密钥适用的账号：没有这个账号，或您的访问密钥不能用于它。服务器上的 `wxtoken status` 会列出所有账号。";
    NO_SUCH_APPID =
        "Check the appid, and which accounts the key is for: no account for you has it here. `wxtoken status` on the server lists \
         them; a mirror knows the AppID only if its config has it.",
        "请核对 appid，以及访问密钥适用的账号：没有您可用的账号使用该 AppID。服务器上的 `wxtoken status` 会列出所有账号；只读副本须在配置里写明 appid。";
    WHICH_ACCOUNT =
        "Name the account, as in GET /token/ACCOUNT: there are several accounts here.",
        "请指明账号，如 GET /token/ACCOUNT：此处有多个账号。";
    SEVERAL_WITH_APPID =
        "On the server, give each client a key for its own account: several accounts here have this AppID, such as the apps \
         of one corp.",
        "请在服务器上为每个调用方生成只用于其账号的访问密钥：此处有多个账号使用该 AppID，例如同一企业的多个应用。";
    CANNOT_REPLACE =
        "Say it on the host that fetches, with `wxtoken fetch --rejected -`, or run serve with --refresh there: this server \
         hands out what is published and replaces nothing.",
        "请在负责刷新的主机上运行 `wxtoken fetch --rejected -`，或在那里以 --refresh 运行 serve：本服务器只提供已发布的 token，\
         不负责更换。";
    NOT_READY =
        "Run `wxtoken status` on the server to see why: not every account has a live token.",
        "请在服务器上运行 `wxtoken status` 查看原因：有账号没有可用的 token。";

    // What is unavailable for a moment.
    JUST_REPLACED = "Ask again: the token has just been replaced.", "请重试：token 刚刚更换。";
    NOT_THE_CURRENT_TOKEN =
        "Ask /cgi-bin/token for the access_token again: this one is none that is handed out here now.",
        "请重新请求 /cgi-bin/token：该 access_token 不是此处当前提供的 token。";

    // What WeChat's own routes need.
    SEND_APPID = "Send the account's AppID as appid.", "请在 appid 中填写账号的 AppID。";
    SEND_CORPID = "Send the corp's ID as corpid.", "请在 corpid 中填写企业 ID。";
    SEND_KEY = "Send your wxtoken key as the secret.", "请用 wxtoken 的访问密钥作为 secret。";
    SEND_GRANT_TYPE = "Send grant_type=client_credential.", "grant_type 须为 client_credential。";
    SEND_ACCESS_TOKEN =
        "Send the access_token that was handed out here.",
        "请携带从此处领取的 access_token。";
    SEND_TICKET_TYPE = "Send a type, such as jsapi.", "请填写 type，例如 jsapi。";
    SEND_STABLE_BODY = "Send the JSON of stable_token.", "请发送 stable_token 的 JSON 请求体。";

    // What ends the retry loop of an SDK.
    LOOPS_WITH_HONOURED =
        "Look for another reason of the refusal: WeChat honours the token that you were handed and keep coming back with.",
        "请排查其他原因：您反复领取的这个 token，微信仍然接受。";
    LOOPS_IN_DOUBT =
        "If WeChat rejects the token that you keep coming back with, say so with POST /token, or on the server with `wxtoken \
         fetch --rejected -`: WeChat could not be asked about it.",
        "如果您反复领取的 token 被微信拒绝，请用 POST /token 报告，或在服务器上运行 `wxtoken fetch --rejected -`：暂时无法向微信核实。";
    LOOPS_WITHOUT_REFRESH =
        "If WeChat rejects the token that you keep coming back with, say so on the host that fetches, with `wxtoken fetch \
         --rejected -`: this server does not ask WeChat about it.",
        "如果您反复领取的 token 被微信拒绝，请在负责刷新的主机上运行 `wxtoken fetch --rejected -`：本服务器不向微信核实。";
    KEEPS_ASKING =
        "Pause between your requests: you keep asking without one, and there is nothing to hand out.",
        "请降低请求频率：您在不间断地请求，而目前没有可提供的 token。";
}
