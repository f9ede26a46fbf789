//! What people type as an AppID and as an AppSecret, and the mistakes that they make: blanks, quotes, a Chinese input method,
//! one in place of the other. No message repeats what was typed, which may be a secret.

use zeroize::Zeroizing;

use super::messages;
use crate::log;
use crate::message::texts;
use crate::model::api::Api;
use crate::model::client_key;
use crate::model::errcode::Platform;
use crate::model::secret::Secret;

texts! {
    SECRET_AS_APPID =
        "Give the AppID here, and remove the AppSecret from the history of your shell, where it is now: this is an AppSecret, which is \
         asked for afterwards.",
        "请在此填写 AppID，并从 shell 历史记录中删除 AppSecret：这里填的是 AppSecret，稍后会提示输入。";
    ORIGINAL_ID =
        "Give the AppID, which begins with wx, on the same page of the console: gh_… is the account's original ID.",
        "请填写同一页面上以 wx 开头的 AppID：gh_ 开头的是原始 ID。";
    CORP_ID =
        "Add --work: ww… is the ID of a corp at WeCom.",
        "请加上 --work：ww 开头的是企业微信的企业 ID。";
    NO_CORP_ID =
        "Copy the ID of the corp, which WeCom's console has at the end of the corp's information: it begins with ww, like ww0123456789abcdef.",
        "请复制企业 ID（企业微信管理后台“我的企业 → 企业信息”）：企业 ID 以 ww 开头，如 ww0123456789abcdef。";
    NOTHING =
        "Type or paste the AppSecret: there is no AppSecret.",
        "请输入或粘贴 AppSecret：没有输入内容。";
    APPID_AS_SECRET =
        "Give the AppSecret here: this is an AppID.",
        "请在此输入 AppSecret：这是 AppID。";
    KEY_AS_SECRET =
        "Give the AppSecret here: wxk_… is the key of a client of wxtoken.",
        "请在此输入 AppSecret：wxk_ 开头的是 wxtoken 的访问密钥。";
    STARS =
        "Reset it in the console, or take it from where it was kept: the console shows stars in place of an AppSecret that was made \
         earlier.",
        "请在后台重置，或从原来的保存处取得：后台以星号隐藏已生成的 AppSecret。";
    LINES =
        "Give the AppSecret alone: there is more than one line.",
        "请只输入 AppSecret：内容不止一行。";
    SECRET_OF_APP =
        "Add --work if this is the Secret of a WeCom app, or give the AppSecret, which has 32 characters: this has 43, as an \
         EncodingAESKey has, too.",
        "请输入 32 位的 AppSecret；若这是企业微信应用的 Secret，请加上 --work：所输入内容为 43 位，也可能是 EncodingAESKey。";
    SECRET_OF_ACCOUNT =
        "Take the Secret of the app, or leave --work out: this has the form of the AppSecret of an official account or a mini \
         program.",
        "请改用应用的 Secret，或去掉 --work：这像是公众号或小程序的 AppSecret。";
    OTHER_DIGITS =
        "Copy it again: an AppSecret has digits and the letters a to f alone; this has others.",
        "请重新复制：AppSecret 只含数字和字母 a 至 f，所输入内容含有其他字符。";
    OTHER_CHARACTERS =
        "Copy it again: a Secret has letters, digits, - and _ alone; this has others.",
        "请重新复制：Secret 只含字母、数字、- 和 _，所输入内容含有其他字符。";
    AROUND_APPID =
        "Give the AppID alone: other characters are around it, such as its name, quotation marks or a comma.",
        "请只填写 AppID：前后还有名称、引号或逗号等其他内容。";
    AROUND_SECRET =
        "Give the AppSecret alone: other characters are around it, such as its name, quotation marks or a comma.",
        "请只输入 AppSecret：前后还有名称、引号或逗号等其他内容。";
    QUOTES =
        "Leave the quotation marks out: they do not belong to it.",
        "请去掉引号：引号不属于其内容。";
    BLANKS =
        "Leave the blanks in it out: they do not belong to it.",
        "请去掉其中的空格：空格不属于其内容。";
    FULL_WIDTH =
        "Switch to English: there are characters of an input method for Chinese in it, such as full-width letters.",
        "请切换到英文输入法：其中有全角等中文输入法字符。";
    CONTROLS =
        "Type it again: there are control characters in it.",
        "请重新输入：其中有控制字符。";
}

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
        return Err(SECRET_AS_APPID.to_owned());
    }
    if is_among_others(text, |word| is_appid(word) || is_corp_id(word)) {
        return Err(AROUND_APPID.to_owned());
    }
    if let Some(problem) = common_problem(text) {
        return Err(problem.to_owned());
    }
    if text.starts_with("gh_") {
        return Err(ORIGINAL_ID.to_owned());
    }
    let is_of_corp = text.starts_with("ww");
    match api.platform() {
        Platform::Official if is_of_corp => Err(CORP_ID.to_owned()),
        Platform::Official if !is_appid(text) => {
            Err(messages::WRONG_APPID.first([&text.chars().count()]))
        }
        Platform::Work if !is_of_corp && !is_appid(text) => Err(NO_CORP_ID.to_owned()),
        _ => Ok(text.to_owned()),
    }
}

/// Whether a text has the form of an AppID.
fn is_appid(text: &str) -> bool {
    let is_hex = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
    text.len() == APPID && text.strip_prefix("wx").is_some_and(|rest| rest.bytes().all(is_hex))
}

/// Whether a text has the length of a corp's ID, and begins like one.
fn is_corp_id(text: &str) -> bool {
    text.len() == APPID && text.starts_with("ww")
}

/// Whether one word of a text is what is looked for, and the text has more than that word.
fn is_among_others(text: &str, is_it: impl Fn(&str) -> bool) -> bool {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    !is_it(text) && text.split(|c| !is_of_word(c)).any(is_it)
}

/// Checks an AppSecret, of which blanks, line ends and a byte order mark around it are removed. The error is what to do.
pub(super) fn secret(typed: &[u8], api: Api) -> Result<Secret, String> {
    let text = Zeroizing::new(String::from_utf8_lossy(typed).into_owned());
    let text = without_margin(&text);
    let length = text.chars().count();
    let is_of_corp = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_secret = |word: &str| match api.platform() {
        Platform::Official => {
            word.len() == APPSECRET && word.bytes().all(|byte| byte.is_ascii_hexdigit())
        }
        Platform::Work => word.len() == CORPSECRET,
    };
    let problem = if text.is_empty() {
        NOTHING.to_owned()
    } else if is_appid(text) || is_corp_id(text) {
        APPID_AS_SECRET.to_owned()
    } else if client_key::has_form_of_key(text) {
        KEY_AS_SECRET.to_owned()
    } else if text.contains('*') {
        STARS.to_owned()
    } else if text.contains(['\n', '\r']) {
        LINES.to_owned()
    } else if is_among_others(text, is_secret) {
        AROUND_SECRET.to_owned()
    } else if let Some(problem) = common_problem(text) {
        problem.to_owned()
    } else {
        match api.platform() {
            Platform::Official if length == CORPSECRET => SECRET_OF_APP.to_owned(),
            Platform::Work if length == APPSECRET => SECRET_OF_ACCOUNT.to_owned(),
            Platform::Official if length != APPSECRET => wrong_length(length, APPSECRET),
            Platform::Work if length != CORPSECRET => wrong_length(length, CORPSECRET),
            Platform::Official if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                OTHER_DIGITS.to_owned()
            }
            Platform::Work if !text.bytes().all(is_of_corp) => OTHER_CHARACTERS.to_owned(),
            _ => return Ok(Secret::new(text.to_owned())),
        }
    };
    Err(problem)
}

fn wrong_length(length: usize, expected: usize) -> String {
    messages::WRONG_LENGTH.first([&length, &expected])
}

/// Returns what is wrong with the characters of a text that is an AppID or an AppSecret.
fn common_problem(text: &str) -> Option<&'static str> {
    let quotes = ['"', '\'', '`', '“', '”', '‘', '’', '「', '」'];
    if text.contains(quotes) {
        Some(QUOTES)
    } else if text.contains(char::is_whitespace) {
        Some(BLANKS)
    } else if !text.is_ascii() {
        Some(FULL_WIDTH)
    } else if text.contains(char::is_control) {
        Some(CONTROLS)
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
            ("ww0123456789abcdef", Api::Stable, "Add --work"),
            (SECRET, Api::Stable, "this is an AppSecret"),
            (CORP_SECRET, Api::Work, "this is an AppSecret"),
            ("\"wx0123456789abcdef\"", Api::Stable, "quotation marks"),
            ("“wx0123456789abcdef”", Api::Classic, "quotation marks"),
            ("wx01234567 89abcdef", Api::Stable, "blanks"),
            ("ｗｘ0123456789abcdef", Api::Stable, "input method"),
            ("gh_0123456789ab", Api::Stable, "original ID"),
            ("wx0123456789abcde", Api::Stable, "this has 17 characters"),
            ("AppID: wx0123456789abcdef", Api::Stable, "Give the AppID alone"),
            ("企业ID：ww0123456789abcdef", Api::Work, "Give the AppID alone"),
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
            (&named, Api::Stable, "Give the AppSecret alone"),
            (&format!("AppSecret(小程序密钥) {SECRET}"), Api::Stable, "Give the AppSecret alone"),
            (&format!("{SECRET}。"), Api::Stable, "Give the AppSecret alone"),
            (&format!("Secret: {CORP_SECRET}"), Api::Work, "Give the AppSecret alone"),
            (&format!("{SECRET}0"), Api::Stable, "Copy it again: this has 33 characters"),
            (&SECRET.replace('e', "g"), Api::Stable, "a to f"),
            ("5ec2e75ec2 e75ec2e75ec2e75ec2e75e", Api::Stable, "blanks"),
            ("5ec2************************e75e", Api::Stable, "stars"),
            (CORP_SECRET, Api::Stable, "Add --work"),
            (CORP_SECRET, Api::Stable, "EncodingAESKey"),
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
