//! What clients are told where there is no token or ticket to hand out, in both languages: what to do, then why.

use crate::message::{messages, notes, texts};
use crate::refresh::{RefreshError, answer_lost};
use crate::upstream::UpstreamError;

/// Returns what clients are told of a request that failed: what WeChat said, and nothing of this machine, such as its paths,
/// its proxies and its commands.
pub(in crate::scheduler) fn of_upstream(error: &UpstreamError) -> String {
    match error {
        UpstreamError::Unreachable(_) => texts::NOT_REACHED.to_owned(),
        UpstreamError::Central { was_reached: false, .. } => texts::SOURCE_NOT_REACHED.to_owned(),
        other => other.without_command(),
    }
}

/// Returns what clients are told of a failed refresh.
pub(in crate::scheduler) fn of_failure(error: &RefreshError) -> String {
    match error {
        RefreshError::Upstream(error) => of_upstream(error),
        RefreshError::AnswerLost { error, ends_at } => {
            format!("{} {}", of_upstream(error), answer_lost(*ends_at))
        }
        RefreshError::Locked | RefreshError::Local(_) | RefreshError::Foreign { .. } => {
            texts::LOCAL_FAULT.to_owned()
        }
    }
}

messages! {
    TOO_SOON<0> {
        "Ask again in half a minute.",
        "another token was asked for moments ago, and that is done once in 30 seconds at most";
        "请在 30 秒后再试。", "30 秒内已强制刷新过";
    }
    DAY_USED_UP<0> {
        "Find the program that kills them: wxtoken check.", "tokens were replaced on demand as often as a day allows";
        "请查明是哪个程序使 token 失效：wxtoken check。", "当日强制刷新次数已用完";
    }
    RENEWALS_USED_UP<0> {
        "See whether base_url leads to WeChat, and who else refreshes: wxtoken check.",
        "WeChat has issued many tokens in a row that it then called dead, which is against its own rules; one is asked for \
         every 30 seconds now";
        "请检查 base_url 是否指向微信、是否有其他程序也在刷新：wxtoken check。",
        "微信接连签发的多个 token 随即失效，不符合其规则，现每 30 秒只获取一次";
    }
    UNPROVEN<1> {
        "Ask again later, or run `wxtoken fetch --rejected -` on the server.",
        "WeChat could not be asked whether it honours this token ({0}), and a report of one client replaces none then: one of \
         another client does";
        "请稍后再试，或在服务器上执行 `wxtoken fetch --rejected -`。",
        "暂时无法向微信核实该 token（{0}），仅凭一个调用方的报告不会更换，需另一个调用方也报告";
    }
}

pub(in crate::scheduler) mod texts {
    use super::texts;

    texts! {
        /// No details of this machine.
        LOCAL_FAULT =
            "Look at the log on the server, which says what to mend: it has a local fault.",
            "请联系管理员查看服务器日志：服务器本地故障。";
        NOT_REACHED =
            "Look at the log on the server, which says why: it cannot reach WeChat.",
            "请联系管理员查看服务器日志：服务器无法连接微信。";
        SOURCE_NOT_REACHED =
            "Look at the log on the server, which says why: it cannot reach the wxtoken that it is a mirror of.",
            "请联系管理员查看服务器日志：服务器无法连接上游 wxtoken。";
        IS_BEING_ASKED =
            "Ask again: WeChat is being asked and has not answered yet.",
            "请稍后再试：正在等待微信应答。";
    }
}

notes! {
    /// Behind why.
    FOR_WANT_OF_TOKEN<2> = "{0} (there is no good token: {1})", "{0}（没有可用的 token：{1}）";
    FOR_WANT_OF_TICKET<3> = "{0} (there is no live {2} ticket: {1})", "{0}（没有可用的 {2} ticket：{1}）";
    IS_ASKED_AGAIN<1> =
        "{0} (WeChat has given no token yet, and is being asked again)", "{0}（微信尚未给出 token，正在重试）";
}
