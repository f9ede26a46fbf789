//! Refusals that name an address, a limit or an account, in both languages: what to do, then why.

use crate::message::messages;

messages! {
    FORBIDDEN<1> {
        "On the server, add {0} to serve's --allow or --allow-file.", "your address {0} is not allowed here";
        "请在服务器上把 {0} 加入 serve 的 --allow 或 --allow-file。", "您的地址 {0} 不在白名单中";
    }
    FORBIDDEN_ACCOUNT<1> {
        "On the server, add {0} to the account's allow.", "your address {0} is not allowed to have this account's token";
        "请在服务器上把 {0} 加入该账号的 allow。", "您的地址 {0} 无权领取该账号的 token";
    }
    TOO_MANY_CONNECTIONS<2> {
        "Keep and reuse fewer connections, raise serve's --max-connections, or name a proxy in its --trusted-proxy.",
        "your address {0} has {1}, as many as one address can hold";
        "请减少并复用连接，或调大 serve 的 --max-connections，或在 --trusted-proxy 中加入代理。",
        "您的地址 {0} 已有 {1} 个连接，达到单个地址的上限";
    }
    BODY_TOO_LARGE<1> {
        "Send a smaller body.", "it is larger than {0} KiB";
        "请减小请求体。", "已超过 {0} KiB";
    }
    HEAD_TOO_LARGE<1> {
        "Send fewer or shorter headers.", "the request line and headers are larger than {0} KiB";
        "请减少或缩短请求头。", "请求行与请求头超过 {0} KiB";
    }
    REQUEST_TIMEOUT<1> {
        "Send the request at once.", "it did not arrive within {0} seconds";
        "请一次性发送请求。", "{0} 秒内未收到完整的请求";
    }
    METHOD_NOT_ALLOWED<1> {
        "Use one of the methods {0}.", "this path takes no other";
        "请使用 {0} 方法。", "该路径不支持其他方法";
    }
    NO_SUCH_TICKET<2> {
        "On the server, put \"{1}\" into tickets = […] of [account.{0}], in a config.",
        "no {1} tickets of the account {0} are kept here";
        "请在服务器的配置文件 [account.{0}] 中，为 tickets 加上 \"{1}\"。", "服务器未保存该账号的 {1} ticket";
    }
    /// Of a type that the API does not have.
    UNKNOWN_TICKET<2> {
        "Ask for a ticket of the type {0}.", "WeChat has no other on the API of the account {1}";
        "请改用 {0} 类型的 ticket。", "账号 {1} 所用的微信接口没有其他类型";
    }
    NOT_READY<1> {
        "Run `wxtoken status` on the server to see why.", "no live token for {0}";
        "请在服务器上运行 `wxtoken status` 查看原因。", "{0} 没有可用的 token";
    }
}
