//! What people type as an AppID and as an AppSecret, and the mistakes that they make: blanks, quotes, a Chinese input method,
//! one in place of the other. No message repeats what was typed, which may be a secret.

use zeroize::Zeroizing;

use crate::language::in_both;
use crate::log;
use crate::model::api::Api;
use crate::model::client_key;
use crate::model::errcode::Platform;
use crate::model::secret::Secret;

/// The length of an AppID: `wx`, and 16 hex digits.
const APPID: usize = 18;

/// The length of an AppSecret: 32 hex digits.
const APPSECRET: usize = 32;

/// The length of the secret of a WeCom app: letters, digits, `-` and `_`.
const CORPSECRET: usize = 43;

/// Checks an AppID, or a corp's ID on work. Returns it without blanks around it. The error is what to do.
pub(super) fn appid(typed: &str, api: Api) -> Result<String, String> {
    let text = without_margin(typed);
    if log::may_hold_secret(text) {
        return Err(in_both(
            "this is an AppSecret, and the AppID belongs here. The AppSecret is asked for afterwards. It is in the history of \
             your shell now: remove it there.",
            "这里应填写 AppID，而不是 AppSecret；AppSecret 稍后会提示输入。它已留在 shell 历史记录中，请从中删除。",
        ));
    }
    if let Some(problem) = common_problem(text) {
        return Err(problem);
    }
    if text.starts_with("gh_") {
        return Err(in_both(
            "gh_… is the account's original ID; the AppID begins with wx, on the same page of the console.",
            "gh_ 开头的是原始 ID；请填写同一页面上以 wx 开头的 AppID。",
        ));
    }
    let is_of_corp = text.starts_with("ww");
    match api.platform() {
        Platform::Official if is_of_corp => Err(in_both(
            "ww… is the ID of a corp at WeCom: add --work.",
            "ww 开头的是企业微信的企业 ID：请加上 --work。",
        )),
        Platform::Official if !is_appid(text) => Err(in_both(
            format!(
                "an AppID is wx and 16 small letters and digits, like wx0123456789abcdef; this has {} characters. Copy it whole.",
                text.chars().count()
            ),
            format!(
                "AppID 由 wx 和 16 位小写字母、数字组成，如 wx0123456789abcdef；所填内容为 {} 个字符，请完整复制。",
                text.chars().count()
            ),
        )),
        Platform::Work if !is_of_corp && !is_appid(text) => Err(in_both(
            "the ID of a corp begins with ww, like ww0123456789abcdef: 我的企业, 企业信息, in WeCom's console.",
            "企业 ID 以 ww 开头，如 ww0123456789abcdef：见企业微信管理后台“我的企业 - 企业信息”。",
        )),
        _ => Ok(text.to_owned()),
    }
}

/// Whether a text has the form of an AppID.
fn is_appid(text: &str) -> bool {
    let is_hex = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
    text.len() == APPID && text.strip_prefix("wx").is_some_and(|rest| rest.bytes().all(is_hex))
}

/// Checks an AppSecret, of which blanks, line ends and a byte order mark around it are removed. The error is what to do.
pub(super) fn secret(typed: &[u8], api: Api) -> Result<Secret, String> {
    let text = Zeroizing::new(String::from_utf8_lossy(typed).into_owned());
    let text = without_margin(&text);
    let length = text.chars().count();
    let is_of_corp = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let problem = if text.is_empty() {
        in_both("there is no AppSecret.", "没有输入 AppSecret。")
    } else if is_appid(text) || (text.starts_with("ww") && length == APPID) {
        in_both(
            "this is an AppID, and the AppSecret belongs here.",
            "这里应输入 AppSecret，而不是 AppID。",
        )
    } else if client_key::has_form_of_key(text) {
        in_both(
            "wxk_… is the key of a client of wxtoken; the AppSecret belongs here.",
            "wxk_ 开头的是 wxtoken 的访问密钥；这里应输入 AppSecret。",
        )
    } else if text.contains('*') {
        in_both(
            "the console shows stars in place of an AppSecret that was made earlier: reset it there, or take it from where it \
             was kept.",
            "控制台以星号隐藏已生成的 AppSecret：请在控制台重置，或从原来的保存处取得。",
        )
    } else if text.contains(['\n', '\r']) {
        in_both("there is more than one line.", "内容不止一行。")
    } else if let Some(problem) = common_problem(text) {
        problem
    } else {
        match api.platform() {
            Platform::Official if length == CORPSECRET => in_both(
                "this has the form of the secret of a WeCom app: add --work.",
                "这像是企业微信应用的 Secret：请加上 --work。",
            ),
            Platform::Work if length == APPSECRET => in_both(
                "this has the form of the AppSecret of an official account or a mini program: leave --work out, or take the \
                 app's Secret.",
                "这像是公众号或小程序的 AppSecret：请去掉 --work，或改用应用的 Secret。",
            ),
            Platform::Official if length != APPSECRET => wrong_length(length, APPSECRET),
            Platform::Work if length != CORPSECRET => wrong_length(length, CORPSECRET),
            Platform::Official if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) => in_both(
                "an AppSecret has digits and the letters a to f alone; this has others.",
                "AppSecret 只含数字和字母 a 至 f，所输入内容含有其他字符。",
            ),
            Platform::Work if !text.bytes().all(is_of_corp) => in_both(
                "a Secret has letters, digits, - and _ alone; this has others.",
                "Secret 只含字母、数字、- 和 _，所输入内容含有其他字符。",
            ),
            _ => return Ok(Secret::new(text.to_owned())),
        }
    };
    Err(problem)
}

fn wrong_length(length: usize, expected: usize) -> String {
    in_both(
        format!("this has {length} characters, and an AppSecret has {expected}. Copy it whole."),
        format!("AppSecret 应为 {expected} 个字符，所输入内容为 {length} 个，请完整复制。"),
    )
}

/// Returns what is wrong with the characters of a text that is an AppID or an AppSecret.
fn common_problem(text: &str) -> Option<String> {
    let quotes = ['"', '\'', '`', '“', '”', '‘', '’', '「', '」'];
    if text.contains(quotes) {
        Some(in_both("leave the quotation marks out.", "请去掉引号。"))
    } else if text.contains(char::is_whitespace) {
        Some(in_both("leave the blanks in it out.", "请去掉其中的空格。"))
    } else if !text.is_ascii() {
        Some(in_both(
            "there are characters of an input method for Chinese in it, such as full-width letters: switch to English.",
            "其中有全角等中文输入法字符：请切换到英文输入法。",
        ))
    } else if text.contains(char::is_control) {
        Some(in_both(
            "there are control characters in it: type it again.",
            "其中有控制字符：请重新输入。",
        ))
    } else {
        None
    }
}

/// Returns a text without what copying brings along at its ends: blanks, line ends, a byte order mark, spaces without a width.
fn without_margin(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '\u{feff}' | '\u{200b}' | '\0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Language;

    const SECRET: &str = "5ec2e75ec2e75ec2e75ec2e75ec2e75e";
    const CORP_SECRET: &str = "xPk1N_Zx9oRrMnIqS-mG4g8tW7vHbY2dQcJ5eLfA0uK";
    const APP: &str = "wx0123456789abcdef";

    #[test]
    fn an_appid_is_taken_without_blanks_around_it_and_each_mistake_is_named() {
        for typed in [APP, " wx0123456789abcdef ", "\u{feff}wx0123456789abcdef\r\n"] {
            assert_eq!(appid(typed, Api::Stable).as_deref(), Ok(APP), "{typed:?}");
        }
        for (typed, api, expected) in [
            ("ww0123456789abcdef", Api::Stable, "add --work"),
            (SECRET, Api::Stable, "this is an AppSecret"),
            (CORP_SECRET, Api::Work, "this is an AppSecret"),
            ("\"wx0123456789abcdef\"", Api::Stable, "quotation marks"),
            ("“wx0123456789abcdef”", Api::Classic, "quotation marks"),
            ("wx01234567 89abcdef", Api::Stable, "blanks"),
            ("ｗｘ0123456789abcdef", Api::Stable, "input method"),
            ("gh_0123456789ab", Api::Stable, "original ID"),
            ("wx0123456789abcde", Api::Stable, "this has 17 characters"),
            ("WX0123456789ABCDEF", Api::Stable, "small letters"),
            ("", Api::Stable, "this has 0 characters"),
            ("shop", Api::Work, "begins with ww"),
        ] {
            let problem = appid(typed, api).expect_err(typed);
            let problem = Language::English.resolve(&problem).into_owned();
            assert!(problem.contains(expected), "{typed}: {problem}");
            assert!(![SECRET, CORP_SECRET].iter().any(|it| problem.contains(it)), "{problem}");
        }
        // A corp's ID from before WeCom had a name of its own.
        for typed in ["ww0123456789abcdef", APP] {
            assert_eq!(appid(typed, Api::Work).as_deref(), Ok(typed));
        }
    }

    #[test]
    fn a_secret_is_taken_without_blanks_around_it_and_each_mistake_is_named() {
        for margin in ["", "\n", "\r\n", " ", "\u{3000}", "\u{feff}", "\t\u{200b}"] {
            let typed = format!("{margin}{SECRET}{margin}");
            assert_eq!(secret(typed.as_bytes(), Api::Stable).unwrap().expose(), SECRET);
        }
        assert_eq!(secret(CORP_SECRET.as_bytes(), Api::Work).unwrap().expose(), CORP_SECRET);
        let quoted = format!("\"{SECRET}\"");
        let named = format!("AppSecret={SECRET}");
        let two_lines = format!("{SECRET}\n{SECRET}");
        let full_width = SECRET.replace('5', "５");
        for (typed, api, expected) in [
            ("", Api::Stable, "no AppSecret"),
            (" \r\n", Api::Stable, "no AppSecret"),
            (APP, Api::Stable, "this is an AppID"),
            ("ww0123456789abcdef", Api::Work, "this is an AppID"),
            (&quoted, Api::Stable, "quotation marks"),
            (&full_width, Api::Stable, "input method"),
            (&two_lines, Api::Stable, "more than one line"),
            (&SECRET[1..], Api::Stable, "this has 31 characters, and an AppSecret has 32"),
            (&named, Api::Stable, "this has 42 characters"),
            (&SECRET.replace('e', "g"), Api::Stable, "a to f"),
            ("5ec2e75ec2 e75ec2e75ec2e75ec2e75e", Api::Stable, "blanks"),
            ("5ec2************************e75e", Api::Stable, "stars"),
            (CORP_SECRET, Api::Stable, "add --work"),
            (SECRET, Api::Work, "leave --work out"),
            (&format!("wxk_{}", "A".repeat(43)), Api::Stable, "key of a client"),
            (&CORP_SECRET.replace('_', "+"), Api::Work, "this has others"),
        ] {
            let problem = secret(typed.as_bytes(), api).expect_err(typed);
            let problem = Language::English.resolve(&problem).into_owned();
            assert!(problem.contains(expected), "{typed}: {problem}");
            let shows = |part: &str| part.len() > 3 && problem.contains(part);
            assert!(!shows(typed) && !shows(SECRET), "{problem}");
        }
        assert!(secret(&[0xff, 0xfe, 0x35], Api::Stable).is_err());
    }
}
