//! What is wrong with documents that are served, in both languages: what to do, then what happened.

use crate::message::{messages, notes, texts};

messages! {
    FOREIGN<2> {
        "Give this account its own file or dir, or have fetch run for it there.",
        "{0} belongs to {1}, another account; nothing is handed out";
        "请为此账号另行指定 file 或 dir，或在该处为其运行 fetch。", "{0} 属于另一个账号 {1}，不提供 token";
    }
    FOREIGN_TICKET<2> {
        "Give this account its own file or dir, or have fetch run for it there.",
        "the {0} ticket belongs to {1}, another account";
        "请为此账号另行指定 file 或 dir，或在该处为其运行 fetch。", "{0} ticket 属于另一个账号 {1}";
    }
}

notes! {
    /// Behind an error.
    TOKEN_STAYS<1> = "{0}; the last good token stays while it lives", "{0}；到期前继续使用此前的 token";
    SECRETS_STAY<1> = "{0}; the last good AppSecrets stay", "{0}；继续使用此前的 AppSecret";
}

pub(super) mod texts {
    use super::texts;

    texts! {
        /// Where this process does not refresh.
        NO_TOKEN =
            "Run `wxtoken status` on the server to see why: there is no live token to hand out.",
            "请在服务器上运行 `wxtoken status` 查看原因：目前没有可用的 token。";
        NO_TICKET =
            "Run `wxtoken status` on the server to see why: there is no live ticket of this type, or not yet; `wxtoken fetch` \
             gets it after the token.",
            "请在服务器上运行 `wxtoken status` 查看原因：目前没有该类型的可用 ticket，`wxtoken fetch` 会在 token 之后获取它。";
    }
}

#[cfg(test)]
pub(crate) use texts::ALL as TEXTS;
