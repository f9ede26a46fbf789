//! What the log says of clients and connections, in both languages: what the operator can do, then what happened.

use crate::message::{messages, notes};

notes! {
    REFUSED<2> = "refused {0}: {1}", "已拒绝 {0}：{1}";
    REFUSED_THROUGH<3> = "refused {0} through {1}: {2}", "已拒绝 {0}（经 {1}）：{2}";
    NO_TLS<2> = "no TLS with {0}: {1}", "与 {0} 的 TLS 握手失败：{1}";
    HANDED_OUT_AGAIN<1> =
        "token {0} was reported as rejected and is handed out again: WeChat honours it",
        "调用方报告 token {0} 被拒绝，但微信仍承认它，故再次下发";
    MORE<2> = "{0} ({1} more since the last line)", "{0}（此后又有 {1} 次）";
}

messages! {
    NOT_ALLOWED<2> {
        "Add {0} to {1}, if it may ask.", "not in {1}";
        "若允许其访问，请将 {0} 加入 {1}。", "不在 {1} 中";
    }
    NOT_ALLOWED_ACCOUNT<1> {
        "Add {0} to the account's allow, if it may have its token.", "not in the allow of the account that it asked for";
        "若允许其使用该账号，请将 {0} 加入该账号的 allow。", "不在所请求账号的 allow 中";
    }
    TOO_MANY_CONNECTIONS<1> {
        "Let it reuse connections, or raise --max-connections.",
        "it has {0} connections, as many as one address can hold (a quarter of --max-connections)";
        "请让它复用连接，或调大 --max-connections。",
        "它已有 {0} 个连接，达到单个地址的上限（--max-connections 的四分之一）";
    }
    UNKNOWN_KEY<0> {
        "Compare its key with the keys file, or make it a new one with wxtoken key.",
        "it showed a key that is not in the keys file";
        "请核对其访问密钥与访问密钥文件，或用 wxtoken key 重新生成。", "访问密钥文件里没有它的访问密钥";
    }
    KEY_OF_OTHER_ACCOUNT<2> {
        "Give it the key of that account, or add the account to the line of {0} in the keys file.",
        "its key {0} is not for the account that it asked for, or there is no such account ({1})";
        "请为其换用该账号的访问密钥，或在访问密钥文件 {0} 一行中加上该账号。",
        "其访问密钥 {0} 不能用于所请求的账号，或没有该账号（{1}）";
    }
    NO_SUCH_ACCOUNT_OF_CALL<0> {
        "Correct from_appid or /gateway/ACCOUNT of its call, or add the account to its key's line in the keys file.",
        "it called an API of an account that is not here, or that its key is not for";
        "请更正其请求中的 from_appid 或 /gateway/ACCOUNT，或在访问密钥文件的对应行中加上该账号。",
        "它调用的接口所属账号不存在，或其访问密钥不能用于该账号";
    }
    UNKNOWN_HOST<1> {
        "Add the name to --server-name, if it is one of this server.",
        "it asked for host {0}, which is not in --server-name";
        "如果这是本服务器的域名，请将其加入 --server-name。", "它请求的 Host {0} 不在 --server-name 中";
    }
    OTHER_SITE<1> {
        "Find the browser there: that page may attack this server.",
        "a page of another site made a browser ask (Origin: {0})";
        "请检查该主机上的浏览器：该网页可能在攻击本服务器。", "请求由其他网站的页面发起（Origin: {0}）";
    }
    BAD_PATH<0> {
        "Have it ask for the path as WeChat documents it.", "it asked for a path in a form that is not passed on";
        "请按微信文档更正其请求的路径。", "它请求的路径形式不予转发";
    }
    KEY_IN_QUERY<0> {
        "Make it a new key, and have it sent as Authorization: Bearer.",
        "it sent a key in a query, where proxies and logs may keep it";
        "请更换该访问密钥，并改用请求头 Authorization: Bearer 发送。", "它把访问密钥放在查询参数里，可能被代理和日志记录";
    }
    UNKNOWN_TOKEN<0> {
        "Have it ask this server for its token, or send its key instead.",
        "it sent an access_token that is not handed out to it, or not any more";
        "请让它向本服务器领取 token，或改为发送访问密钥。", "它携带的 access_token 不是发给它的，或已停用";
    }
    FORBIDDEN_ACCOUNT_OF_CALL<0> {
        "Add its address to the account's allow, if it may use it.",
        "not in the allow of the account whose token it sent";
        "若允许其使用该账号，请将其地址加入该账号的 allow。", "不在其 token 所属账号的 allow 中";
    }
    ADMINISTRATION<0> {
        "Name the path in its key's line, if it may call it.",
        "it called an API of administration, which no key of its own names";
        "若允许调用，请在其访问密钥的对应行中写明该路径。", "它调用了管理类接口，而其访问密钥未写明该路径";
    }
    FORBIDDEN_API<0> {
        "Add the path to its key's line, if it may call it.", "it called an API that its key does not name";
        "若允许调用，请在其访问密钥的对应行中加上该路径。", "它调用的接口不在其访问密钥指定的范围内";
    }
    NO_CLIENT_CERTIFICATE<0> {
        "Give it a certificate of a CA in --tls-client-ca.", "it showed no certificate, and --tls-client-ca asks for one";
        "请为它配备 --tls-client-ca 中的 CA 签发的证书。", "它没有出示证书，而 --tls-client-ca 要求证书";
    }
    UNFIT_CERTIFICATE<1> {
        "Make it a certificate of version 3 that is no CA's own.", "its certificate is not fit for a client ({0})";
        "请为它签发版本 3 且不是 CA 的证书。", "它的证书不能用作客户端证书（{0}）";
    }
    INVALID_CERTIFICATE<0> {
        "Give it a certificate of a CA in --tls-client-ca that is still valid.",
        "its certificate does not hold against --tls-client-ca";
        "请为它配备 --tls-client-ca 中的 CA 签发的有效证书。", "它的证书未通过 --tls-client-ca 的校验";
    }
    DISTRUSTED<1> {
        "See that --tls-cert is still valid, for the name that is asked for, and that its issuers' certificates are behind it.",
        "it does not trust the certificate in --tls-cert ({0})";
        "请检查 --tls-cert 的证书是否有效、域名是否一致，以及签发者的证书是否依次写在其后。",
        "它不接受 --tls-cert 的证书（{0}）";
    }
    NO_HANDSHAKE<0> {
        "See which program asks there: it may speak plain HTTP, or only an old version of TLS.", "the handshake failed";
        "请检查是哪个程序在请求：它可能使用 HTTP，或只支持旧版 TLS。", "握手失败";
    }
    EVICTED<1> {
        "Raise --max-connections or ulimit -n.",
        "all {0} places for connections are taken, the one that is idle for longest makes room";
        "请调大 --max-connections 或 ulimit -n。", "{0} 个连接已用满，空闲最久的连接被关闭";
    }
    EVICTED_FOR_ITSELF<2> {
        "Let {0} reuse its connections.",
        "{0} has {1} connections, as many as one address can hold (a quarter of --max-connections); its idle ones make room";
        "请让 {0} 复用连接。",
        "{0} 已有 {1} 个连接，达到单个地址的上限（--max-connections 的四分之一），其空闲连接被关闭";
    }
    ALL_IN_FLIGHT<1> {
        "Raise --max-connections or ulimit -n.",
        "all {0} places for connections are taken by requests that are being answered, new ones wait";
        "请调大 --max-connections 或 ulimit -n。", "{0} 个连接都在处理请求，新连接须等待";
    }
    TOO_MANY_CALLS<0> {
        "See why WeChat answers slowly, or raise --max-connections.",
        "calls are refused: three quarters of --max-connections are waiting for WeChat";
        "请检查微信应答为何缓慢，或调大 --max-connections。", "等待微信应答的请求已占 --max-connections 的四分之三，新请求被拒绝";
    }
    TOO_MANY_CALLS_OF_CLIENT<2> {
        "Let {0} make fewer calls at once, or raise --max-connections.",
        "its calls are refused: {1} of them are waiting for WeChat, as many as one client may have (a quarter of --max-connections)";
        "请减少 {0} 的并发请求，或调大 --max-connections。",
        "其请求被拒绝：等待微信应答的已有 {1} 个，达到单个调用方的上限（--max-connections 的四分之一）";
    }
    NOT_ACCEPTED<0> {
        "Look at the errors of the network there (dmesg).", "cannot accept a connection";
        "请检查本机网络是否出错（dmesg）。", "无法接受连接";
    }
    NO_DESCRIPTORS<0> {
        "Raise ulimit -n, or LimitNOFILE= of the unit.", "cannot accept a connection";
        "请调高 ulimit -n 或 LimitNOFILE=。", "无法接受连接";
    }
    NOT_PASSED_ON<0> {
        "Check the network, and the account's proxy and base_url; wxtoken check tells which.",
        "a call cannot be passed on to WeChat";
        "请检查网络，以及该账号的 proxy 与 base_url（运行 wxtoken check 可定位）。", "请求无法转发给微信";
    }
    LEADS_BACK<0> {
        "Correct the account's base_url, or the proxy on the way.",
        "a call cannot be passed on to WeChat: the way leads back to this gateway";
        "请修正该账号的 base_url 或途中的代理。", "请求无法转发给微信：途中又回到了本网关";
    }
}
