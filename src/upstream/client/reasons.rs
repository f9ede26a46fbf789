//! Why a request had no answer, as the words in brackets say it, in both languages. What to do follows from the stage.

use crate::message::notes;

notes! {
    NO_SERVER<0> = "there is no server to ask", "没有可以请求的服务器";
    NO_ANSWER_IN_TIME<0> = "no answer in time", "未在限定时间内应答";
    NO_THREAD<1> = "no thread: {0}", "无法创建线程：{0}";
    CONNECTION_FAILED<0> = "the connection failed", "连接失败";
    NO_ADDRESS<0> = "the host name has no address (DNS)", "域名没有地址（DNS）";
    NO_ADDRESS_AS<1> = "the host name has no address (DNS): {0}", "域名没有地址（DNS）：{0}";
    PROXY_REFUSED<1> = "the proxy refused: {0}", "代理拒绝：{0}";
    PROXY_ADDRESS<0> = "the proxy's address is not valid", "代理地址不正确";
    THROUGH_PROXY<2> = "{0} through the proxy {1}", "{0}（经代理 {1}）";
    OTHER_CA<0> =
        "it is not signed by the trusted CA of this name, but by a CA of this name with another key (BadSignature)",
        "证书由另一个同名的 CA 签发，密钥与受信任的 CA 不同（BadSignature）";
    CERTIFICATE_ENDED<2> = "the certificate ended at {0}; it is {1} here", "证书已于 {0} 到期；本机时间为 {1}";
    CERTIFICATE_BEGINS<2> =
        "the certificate begins at {0}; it is {1} here", "证书自 {0} 起生效；本机时间为 {1}";
    FAR_OFF<0> = "a day far off", "很远的日期";
    LARGE_BODY<1> = "a body of more than {0} bytes", "应答体超过 {0} 字节";
    LARGE_HEAD<1> = "a head of more than {0} bytes", "应答头超过 {0} 字节";
    MANY_HEADERS<1> = "more than {0} headers", "应答头超过 {0} 个";
    NOT_HTTP<0> = "it is not HTTP", "不是 HTTP";
    CLIENT_FAILED<0> = "the HTTP client failed", "HTTP 客户端出错";
    CLIENT_GAVE_UP<0> = "the HTTP client gave up", "HTTP 客户端放弃了请求";
}

/// How many headers ureq takes of an answer.
pub(super) const MAX_HEADERS: usize = 128;

/// Returns why ureq cannot read an answer. It has no type of its own for what is wrong, only what it `said`.
pub(super) fn of_malformed(said: &str) -> String {
    match said.contains("too many headers") {
        true => MANY_HEADERS.with([&MAX_HEADERS]),
        false => NOT_HTTP.with([]),
    }
}
