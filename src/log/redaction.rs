//! Recognizes secrets by their form, wherever they stand, and takes them out of text that is about to be shown. Knows
//! nothing of where the text comes from.

use std::borrow::Cow;

/// Lengths of an AppSecret: hex digits at WeChat; letters, digits, `-` and `_` at WeCom.
const APPSECRET: usize = 32;
const CORPSECRET: usize = 43;

/// Prefix and length of a client's key.
const KEY: (&str, usize) = ("wxk_", 47);

/// Tokens are longer than this, and hardly any other word is.
const TOKEN: usize = 100;

/// Stands for what is not shown.
const REDACTED: &str = "[…]";

/// Whether a word in `text` has the form of an AppSecret, a client's key or a token. Such text must not be shown.
pub(crate) fn may_hold_secret(text: &str) -> bool {
    text.split(|c| !is_of_word(c)).any(is_secret)
}

/// Returns `text` without the words that have the form of an AppSecret, a client's key or a token.
pub(crate) fn without_secrets(text: &str) -> Cow<'_, str> {
    if !may_hold_secret(text) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(map_words(text, |word| if is_secret(word) { REDACTED } else { word }))
}

/// The length of the longest word that [`without_long_words`] keeps, in bytes. A longer one may be a secret, a key or a
/// token: an AppSecret has 32. The longest word that people need to read, WeChat's name for a call, has 26.
const MAX_WORD: usize = 28;

/// Replaces every word that is long enough to be a secret or a token: more than [`MAX_WORD`] letters, digits, `-` and `_`
/// in a row. For text that may contain one by mistake.
pub(crate) fn without_long_words(text: &str) -> String {
    map_words(text, |word| if word.len() > MAX_WORD { REDACTED } else { word })
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_')
}

fn is_secret(word: &str) -> bool {
    let has_any = |is: fn(&u8) -> bool| word.as_bytes().iter().any(is);
    match word.len() {
        APPSECRET => word.bytes().all(|byte| byte.is_ascii_hexdigit()),
        CORPSECRET => {
            has_any(u8::is_ascii_digit)
                && has_any(u8::is_ascii_lowercase)
                && has_any(u8::is_ascii_uppercase)
        }
        length => length >= TOKEN || (length == KEY.1 && word.starts_with(KEY.0)),
    }
}

/// Replaces each word of `text` by what `map` makes of it, and keeps what is between words.
fn map_words(text: &str, map: impl Fn(&str) -> &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_of_word) {
        let end =
            rest[start..].find(|c| !is_of_word(c)).map_or(rest.len(), |length| start + length);
        out.push_str(&rest[..start]);
        out.push_str(map(&rest[start..end]));
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const WECHAT: &str = "5ec2e75ec2e75ec2e75ec2e75ec2e75e";
    const WECOM: &str = "xPk1N_Zx9oRrMnIqS-mG4g8tW7vHbY2dQcJ5eLfA0uK";

    #[test]
    fn an_appsecret_is_recognized_anywhere_in_a_text() {
        assert_eq!((WECHAT.len(), WECOM.len()), (32, 43));
        for text in [WECHAT, WECOM, &WECHAT.to_uppercase()] {
            assert!(may_hold_secret(text), "{text}");
            assert!(may_hold_secret(&format!("https://x/?secret={text}&a=b")), "{text}");
            assert!(!may_hold_secret(&format!("{text}a")), "{text}");
        }
        for text in
            ["", "wx0123456789abcdef", "api.weixin.qq.com", &"x".repeat(32), &"_".repeat(43)]
        {
            assert!(!may_hold_secret(text), "{text}");
        }
    }

    #[test]
    fn a_clients_key_and_a_token_are_recognized_by_their_form() {
        let (key, token) = (format!("wxk_{}", "A".repeat(43)), format!("72_{}", "x".repeat(130)));
        for secret in [&key, &token] {
            assert!(may_hold_secret(&format!("/etc/wxtoken/{secret}.key")), "{secret}");
        }
        for name in [&key[1..], &key[..46], "wxk_", &"x".repeat(TOKEN - 1)] {
            assert!(!may_hold_secret(name), "{name}");
        }
    }

    #[test]
    fn only_what_has_the_form_of_a_secret_is_taken_out() {
        let text = format!("读取 /etc/{WECHAT}.secret and {WECOM}: 拒绝");
        assert_eq!(without_secrets(&text), "读取 /etc/[…].secret and […]: 拒绝");
        for text in ["", "cannot read /etc/wxtoken/default.secret", &"x".repeat(40), "无"] {
            assert!(matches!(without_secrets(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn a_word_as_long_as_a_token_is_replaced() {
        let (short, long) = ("x".repeat(MAX_WORD), "-_0".repeat(10));
        let text = format!("a={short}&b={long}, 无 {long}");
        assert_eq!(without_long_words(&text), format!("a={short}&b=[…], 无 […]"));
        assert_eq!(without_long_words(""), "");
        let rid = "invalid appid rid: 6aac005a-01bfdbee-79769285";
        assert_eq!(without_long_words(rid), rid);
    }
}
