//! Clients' keys: their form, and the line for a key in a keys file, which `wxtoken key` writes and `serve` reads. Generates
//! no random numbers and stores no key.

pub(crate) mod api_scope;
pub(crate) mod opaque_token;

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::SHA256;

use self::api_scope::ApiScope;
use crate::message::texts;
use crate::model::secret::Secret;

/// The prefix of every key, by which people and secret scanners recognize one.
const PREFIX: &str = "wxk_";

/// The prefix of every opaque token.
pub(crate) const OPAQUE_PREFIX: &str = "wxo_";

/// Enough that a key cannot be guessed, so its digest needs no salt.
pub(crate) const RANDOM_BYTES: usize = 32;

const MAX_NAME: usize = 64;
const MAX_ACCOUNT: usize = 32;

/// The accounts of a line that is for all of them, where APIs follow.
const ALL_ACCOUNTS: &str = "*";

texts! {
    INVALID_LINE =
        "Write NAME SHA256 [ACCOUNT,… [API,…]], the line that `wxtoken key` prints: this is another one",
        "请填写 NAME SHA256 [ACCOUNT,… [API,…]]，即 `wxtoken key` 输出的那一行：格式不对";
    INVALID_NAME =
        "Correct the name: it begins with a letter or digit, and has no more than 64 letters, digits, '.', '_' and '-'",
        "请更正名称：须以字母或数字开头，且只含字母、数字、.、_、-，最多 64 个字符";
    NAME_WITH_PREFIX =
        "Correct the name: it does not begin with wxk_, which keys begin with",
        "请更正名称：不能以 wxk_ 开头，那是访问密钥的开头";
    INVALID_DIGEST =
        "Copy the line again: its second word is not a SHA-256 in 64 hex digits",
        "请重新复制该行：第二列不是 64 位十六进制的 SHA-256";
    INVALID_ACCOUNT =
        "Correct the account's name: it begins with a small letter or digit, and has no more than 32 small letters, digits, \
         '_' and '-'",
        "请更正账号名：须以小写字母或数字开头，且只含小写字母、数字、_、-，最多 32 个字符";
    TOO_MANY_WORDS =
        "Separate accounts, and APIs, by commas without blanks: there is a fifth word",
        "账号之间、接口之间请用逗号分隔，不加空格：有第五列";
    KEY_INSTEAD_OF_DIGEST =
        "Put the line of `wxtoken key` here, with the key's SHA-256: this looks like the key itself",
        "请填写 `wxtoken key` 输出的 line 一行（SHA-256）：这里像是访问密钥本身";
    LABEL_INCLUDED =
        "Leave out the word `line:`: the line begins after it",
        "请去掉 `line:`：该行从其后开始";
    INVALID_API =
        "Write `all`, or paths such as /cgi-bin/message, separated by commas without blanks: a path has letters, digits, '_', \
         '-' and '.'",
        "请填写 all，或 /cgi-bin/message 这样的路径，以逗号分隔，不加空格：路径只含字母、数字、_、-、.";
}

/// The SHA-256 of a key.
pub(crate) type Digest = [u8; 32];

/// Returns a new key made of `random`, in characters that are safe in URLs, shells and headers.
pub(crate) fn from_random(random: &[u8; RANDOM_BYTES]) -> Secret {
    Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random)))
}

/// Whether a text has the form of a key.
pub(crate) fn has_form_of_key(text: &str) -> bool {
    text.len() == PREFIX.len() + RANDOM_BYTES.div_ceil(3) * 4 - 1 && text.starts_with(PREFIX)
}

/// Returns the SHA-256 of a key.
pub(crate) fn digest(key: &[u8]) -> Digest {
    let mut digest = Digest::default();
    digest.copy_from_slice(ring::digest::digest(&SHA256, key).as_ref());
    digest
}

/// A line of a keys file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyLine {
    /// Identifies the client. Two keys may share a name while one replaces the other.
    pub(crate) name: String,
    pub(crate) digest: Digest,
    /// The accounts the key gives access to; empty means all.
    pub(crate) accounts: Vec<String>,
    /// The APIs that may be called with it through the gateway.
    pub(crate) apis: ApiScope,
}

impl KeyLine {
    /// Returns the line for a key. Fails if the name or an account is invalid.
    pub(crate) fn new(
        name: &str,
        digest: Digest,
        accounts: Vec<String>,
        apis: ApiScope,
    ) -> Result<KeyLine, &'static str> {
        if !is_name(name) {
            return Err(INVALID_NAME);
        }
        if name.starts_with(PREFIX) {
            return Err(NAME_WITH_PREFIX);
        }
        if !accounts.iter().all(|account| is_account(account)) {
            return Err(INVALID_ACCOUNT);
        }
        Ok(KeyLine { name: name.to_owned(), digest, accounts, apis })
    }

    /// Parses a line. Errors quote nothing of it, because it may hold a key in the wrong place.
    pub(crate) fn parse(text: &str) -> Result<KeyLine, &'static str> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        if words.iter().take(2).any(|word| word.starts_with(PREFIX)) {
            return Err(KEY_INSTEAD_OF_DIGEST);
        }
        let (name, digest, accounts, apis) = match words[..] {
            ["line:", ..] => return Err(LABEL_INCLUDED),
            [name, digest] => (name, digest, ALL_ACCOUNTS, ""),
            [name, digest, accounts] => (name, digest, accounts, ""),
            [name, digest, accounts, apis] => (name, digest, accounts, apis),
            [_, _, _, _, _, ..] => return Err(TOO_MANY_WORDS),
            _ => return Err(INVALID_LINE),
        };
        let digest = parse_hex(digest)?;
        let accounts = match accounts {
            ALL_ACCOUNTS => Vec::new(),
            accounts => accounts.split(',').map(str::to_owned).collect(),
        };
        let apis = match apis {
            "" => ApiScope::Usual,
            apis => ApiScope::parse(apis.split(','))?,
        };
        KeyLine::new(name, digest, accounts, apis)
    }
}

impl fmt::Display for KeyLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.name)?;
        self.digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        let accounts = self.accounts.join(",");
        match (&self.apis, accounts.is_empty()) {
            (ApiScope::Usual, true) => Ok(()),
            (ApiScope::Usual, false) => write!(f, " {accounts}"),
            (apis, true) => write!(f, " {ALL_ACCOUNTS} {apis}"),
            (apis, false) => write!(f, " {accounts} {apis}"),
        }
    }
}

/// Whether this is a valid name of a key: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Whether this is a valid name of an account: `[a-z0-9][a-z0-9_-]{0,31}`.
pub(crate) fn is_account(text: &str) -> bool {
    let is_small = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= MAX_ACCOUNT
        && text.bytes().next().is_some_and(is_small)
        && text.bytes().all(|byte| is_small(byte) || b"_-".contains(&byte))
}

fn parse_hex(text: &str) -> Result<Digest, &'static str> {
    let nibble = |digit: u8| char::from(digit).to_digit(16).ok_or(INVALID_DIGEST);
    let mut digest = Digest::default();
    if text.len() != 2 * digest.len() {
        return Err(INVALID_DIGEST);
    }
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = (nibble(pair[0])? << 4 | nibble(pair[1])?) as u8;
    }
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// printf wxk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA | sha256sum
    const ZEROS_DIGEST: &str = "8d39a30cbb22673feff689ca74b75b7e245e869172629df2273f860fa2f074ff";

    #[test]
    fn a_key_is_a_prefix_and_43_characters_without_need_for_quoting() {
        let zeros = from_random(&[0; RANDOM_BYTES]);
        assert_eq!(zeros.expose(), format!("wxk_{}", "A".repeat(43)));
        let ones = from_random(&[0xff; RANDOM_BYTES]);
        assert_eq!(ones.expose().len(), 47);
        assert!(
            ones.expose().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        );
        let line = KeyLine {
            name: "php".into(),
            digest: digest(zeros.expose().as_bytes()),
            accounts: vec![],
            apis: ApiScope::Usual,
        };
        assert_eq!(line.to_string(), format!("php {ZEROS_DIGEST}"));
    }

    #[test]
    fn a_line_is_parsed_as_it_was_written() {
        for accounts in [&[][..], &["shop"], &["shop", "0-branch_2"], &["wxk_"]] {
            for apis in ["", "all", "/cgi-bin/message,/wxa"] {
                let accounts = accounts.iter().map(|account| (*account).to_owned()).collect();
                let apis = ApiScope::parse(apis.split(',').filter(|api| !api.is_empty())).unwrap();
                let line = KeyLine::new("php.web-1", digest(b"K"), accounts, apis).unwrap();
                assert_eq!(KeyLine::parse(&line.to_string()), Ok(line));
            }
        }
        let with_blanks =
            KeyLine::parse(&format!(" \tphp\t {}  shop ", ZEROS_DIGEST.to_uppercase())).unwrap();
        assert_eq!(with_blanks.to_string(), format!("php {ZEROS_DIGEST} shop"));
    }

    #[test]
    fn errors_about_invalid_lines_quote_nothing_of_them() {
        let key = from_random(&[7; RANDOM_BYTES]);
        let key = key.expose();
        let long = |n: usize| "n".repeat(n);
        for (line, expected) in [
            (long(64), INVALID_LINE),
            (format!("{} {ZEROS_DIGEST}", long(65)), INVALID_NAME),
            (format!("-php {ZEROS_DIGEST}"), INVALID_NAME),
            (format!("p\u{e9} {ZEROS_DIGEST}"), INVALID_NAME),
            (format!("a/b {ZEROS_DIGEST}"), INVALID_NAME),
            (format!("php {}", &ZEROS_DIGEST[1..]), INVALID_DIGEST),
            (format!("php {ZEROS_DIGEST}0"), INVALID_DIGEST),
            (format!("php +{}", &ZEROS_DIGEST[1..]), INVALID_DIGEST),
            (format!("php g{}", &ZEROS_DIGEST[1..]), INVALID_DIGEST),
            (format!("php \u{e9}{}", &ZEROS_DIGEST[2..]), INVALID_DIGEST),
            (format!("php {ZEROS_DIGEST} Shop"), INVALID_ACCOUNT),
            (format!("php {ZEROS_DIGEST} shop,"), INVALID_ACCOUNT),
            (format!("php {ZEROS_DIGEST} ,"), INVALID_ACCOUNT),
            (format!("php {ZEROS_DIGEST} _shop"), INVALID_ACCOUNT),
            (format!("php {ZEROS_DIGEST} {}", long(33)), INVALID_ACCOUNT),
            (format!("php {ZEROS_DIGEST} shop branch"), INVALID_API),
            (format!("php {ZEROS_DIGEST} shop /wxa,"), INVALID_API),
            (format!("php {ZEROS_DIGEST} *,shop"), INVALID_ACCOUNT),
            (format!("php {ZEROS_DIGEST} shop /wxa /card"), TOO_MANY_WORDS),
            (format!("line: php {ZEROS_DIGEST}"), LABEL_INCLUDED),
            (format!("key:  {key}"), KEY_INSTEAD_OF_DIGEST),
            (format!("php {key}"), KEY_INSTEAD_OF_DIGEST),
            (key.to_owned(), KEY_INSTEAD_OF_DIGEST),
            (format!("php {ZEROS_DIGEST} {key}"), INVALID_ACCOUNT),
            (format!("php {ZEROS_DIGEST} shop {key}"), INVALID_API),
        ] {
            assert_eq!(KeyLine::parse(&line), Err(expected), "{line}");
        }
        assert_eq!(
            KeyLine::new("wxk_php", digest(b"K"), vec![], ApiScope::Usual),
            Err(NAME_WITH_PREFIX)
        );
        assert!(KeyLine::parse(&format!("{} {ZEROS_DIGEST} {}", long(64), long(32))).is_ok());
    }

    #[test]
    fn a_text_has_the_form_of_a_key_by_its_prefix_and_its_length() {
        let key = from_random(&[7; RANDOM_BYTES]);
        let key = key.expose();
        assert!(has_form_of_key(key));
        let other = key.replace("wxk_", "wxK_");
        for text in ["", "wxk_", &key[1..], &key[..46], &format!("{key}A"), &other] {
            assert!(!has_form_of_key(text), "{text}");
        }
    }
}
