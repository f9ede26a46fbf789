//! Refusals by WeChat: the class of an errcode, the exit status it leads to, how long to wait, and the remedy to show.
//! Makes no calls. What each code means is in `table`.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::UtcDateTime;

use crate::error::Exit;
use crate::language::in_both;
use crate::log::{printable, without_long_words};
use crate::message::{action, action_first};

use table::Meaning;

pub(crate) mod table;

/// The kind of failure that an errcode stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Passes by itself within seconds; another attempt at once may succeed.
    Transient,
    /// AppID or AppSecret is wrong.
    Credentials,
    /// The request itself is wrong: a wrong host, or a proxy that changed it.
    Request,
    /// The caller's address is not allowed, or is waiting for an admin's approval.
    Allowlist,
    /// Called too often; passes with time.
    Quota,
    /// The account may not use this API.
    Permission,
    /// The account is limited, frozen or closed.
    Account,
    /// The token used is dead: request a new one, once.
    TokenDead,
    /// In none of WeChat's published tables.
    Unknown,
}

impl Class {
    /// Returns the exit status for errcodes of this class.
    pub(crate) fn exit(self) -> Exit {
        match self {
            Class::Transient => Exit::Unreachable,
            _ => Exit::Refused,
        }
    }
}

/// What the refused call was for. 40001 means a wrong secret when requesting a token, and a dead token when using one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::enum_variant_names, reason = "records on disk hold these names")]
pub(crate) enum CallKind {
    RequestsToken,
    /// Requests a token at the stable API, which has a quota of its own.
    RequestsStableToken,
    UsesToken,
}

/// Who defines the errcodes; the same number can mean different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Platform {
    /// 公众号, 服务号, 小程序: api.weixin.qq.com.
    Official,
    /// 企业微信: qyapi.weixin.qq.com.
    Work,
}

impl Platform {
    /// Returns the base URL of its API.
    pub(crate) const fn base_url(self) -> &'static str {
        match self {
            Platform::Official => "https://api.weixin.qq.com",
            Platform::Work => "https://qyapi.weixin.qq.com",
        }
    }

    /// Returns the host of its API.
    pub(crate) const fn host(self) -> &'static str {
        self.base_url().split_at("https://".len()).1
    }
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// How long to wait after codes whose class alone does not tell.
static WAITS: &[(&[i64], Duration)] = &[
    // This quota is per minute.
    (&[45011], MINUTE),
    // Parallel calls end within seconds.
    (&[45033], Duration::from_secs(10)),
    // An admin of the account has been asked to approve the address.
    (&[89501, 89502, 89503, 89504, 89505], Duration::from_secs(5 * 60)),
    // WeChat documents how long an address is blocked after an admin has refused it once, and twice.
    (&[89507], HOUR),
    (&[89506], Duration::from_secs(24 * 60 * 60)),
];

/// The daily quota of 公众号 and 小程序.
const DAILY_QUOTA: i64 = 45009;

/// A refusal by WeChat, with its text made safe to print.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) code: i64,
    pub(crate) call: CallKind,
    pub(crate) platform: Platform,
    meaning: &'static Meaning,
    /// WeChat's `errmsg`, without what could be a secret.
    pub(crate) text: String,
}

impl Refusal {
    /// `text` is WeChat's `errmsg`: untrusted, of any length and content. An intermediary may have put a secret or a
    /// token into it.
    pub(crate) fn new(code: i64, text: &str, call: CallKind, platform: Platform) -> Refusal {
        Refusal {
            code,
            call,
            platform,
            meaning: table::meaning_of(code, call, platform),
            text: printable(&without_long_words(text), 300),
        }
    }

    pub(crate) fn class(&self) -> Class {
        self.meaning.class
    }

    /// Returns for how long another attempt is pointless; `None` if one within seconds may succeed.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        if let Some(wait) = self.known_wait() {
            return Some(wait);
        }
        match self.class() {
            Class::Transient | Class::TokenDead => None,
            // An admin acts, and WeChat applies it within minutes; asking meanwhile costs nothing but the call.
            Class::Allowlist => Some(5 * MINUTE),
            // A daily quota ends with a day, at a time that WeChat does not document; an hour is late enough.
            Class::Quota => Some(HOUR),
            // A person has to fix it, and then reloads or restarts. Until then every call may do harm: WeCom bans an
            // address for an hour after repeated wrong secrets.
            Class::Credentials
            | Class::Request
            | Class::Permission
            | Class::Account
            | Class::Unknown => Some(HOUR),
        }
    }

    /// Returns until when later runs do not ask again after a refusal at `at`; `None` if each of them asks. A process that
    /// goes on waits for [`Refusal::retry_after`] instead, which is no shorter.
    pub(crate) fn holds_until(&self, at: UtcDateTime) -> Option<UtcDateTime> {
        let wait = match self.class() {
            Class::Credentials | Class::Quota => self.retry_after()?,
            // A person adds the address in the console and runs `fetch` again.
            Class::Allowlist => self.known_wait().unwrap_or(MINUTE),
            // Asking does no harm, and what is in the way may be mended on this host.
            Class::Transient
            | Class::Request
            | Class::Permission
            | Class::Account
            | Class::TokenDead
            | Class::Unknown => return None,
        };
        let until = at.saturating_add(wait.try_into().unwrap_or_default());
        match (self.code, self.platform) {
            (DAILY_QUOTA, Platform::Official) => Some(until.min(next_midnight_in_beijing(at))),
            _ => Some(until),
        }
    }

    fn known_wait(&self) -> Option<Duration> {
        WAITS.iter().find(|(codes, _)| codes.contains(&self.code)).map(|(_, wait)| *wait)
    }

    /// Returns the caller's address as WeChat saw it, if the text names it; the IPv4 address if it names both.
    pub(crate) fn ip(&self) -> Option<&str> {
        ["invalid ip ", "from ip: ", "requestIP: "].iter().find_map(|prefix| {
            let rest = self.text.split_once(prefix)?.1.trim_start();
            let end = rest
                .find(|c: char| !(c.is_ascii_hexdigit() || matches!(c, '.' | ':')))
                .unwrap_or(rest.len());
            let ip = rest[..end].trim_end_matches(['.', ':']);
            ip.parse::<std::net::IpAddr>().is_ok().then_some(ip)
        })
    }

    /// Returns what WeChat said, without the address in its second form and without its advice on the quota, which is the
    /// table's, too.
    fn shown_text(&self) -> String {
        const ADVICE: &str = ", could get access_token by getStableAccessToken, more details at ";
        let mut text = match self.ip() {
            Some(ip) => self.text.replace(&format!(" ipv6 ::ffff:{ip}"), ""),
            None => self.text.clone(),
        };
        if let Some(start) = text.find(ADVICE) {
            let link = &text[start + ADVICE.len()..];
            let length = ADVICE.len() + link.find(' ').unwrap_or(link.len());
            text.replace_range(start..start + length, "");
        }
        text
    }

    /// Returns WeChat's identifier of this call: three groups of 8 hex digits, the first of them the Unix time.
    fn rid(&self) -> Option<&str> {
        let rest = self.text.split_once("rid: ")?.1;
        let rid = rest.get(..26)?;
        let is_rid = rid
            .bytes()
            .enumerate()
            .all(|(i, b)| if i % 9 == 8 { b == b'-' } else { b.is_ascii_hexdigit() });
        is_rid.then_some(rid)
    }

    /// Returns when WeChat answered by its own clock, in seconds since 1970, if the text tells.
    pub(crate) fn answered_at(&self) -> Option<i64> {
        i64::from_str_radix(self.rid()?.get(..8)?, 16).ok()
    }
}

/// Returns the next midnight in Beijing, where WeChat's days begin. Beijing has no summer time.
fn next_midnight_in_beijing(at: UtcDateTime) -> UtcDateTime {
    let (day, offset) = (time::Duration::DAY.whole_seconds(), 8 * 60 * 60);
    let today = (at.unix_timestamp() + offset).div_euclid(day);
    UtcDateTime::from_unix_timestamp((today + 1) * day - offset).unwrap_or(at)
}

impl std::fmt::Display for Refusal {
    /// `What to do: WeChat refused (40164): what happened [what WeChat said]`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without an address or rid in the answer, the remedy says how to find them out.
        let fill = |text: &str, (by_ip, no_ip): (&str, &str), (by_rid, no_rid): (&str, &str)| {
            let text = match self.ip() {
                Some(ip) => text.replace("{ip}", ip),
                None => text.replace(by_ip, no_ip),
            };
            let text = match self.rid() {
                Some(rid) => text.replace("{rid}", rid),
                None => text.replace(by_rid, no_rid),
            };
            text.replace("{code}", &self.code.to_string())
        };
        let english = |text: &str| {
            let no_rid = ("Look up rid {rid} with WeChat", "Look it up in WeChat's documentation");
            let no_ip = ("IP {ip}", "the address by which this host reaches the Internet");
            fill(text, no_ip, no_rid)
        };
        let chinese = |text: &str| {
            let no_rid = ("请用 rid {rid} 查询", "请查阅微信官方文档");
            fill(text, (" IP {ip}", "本机出口 IP"), no_rid)
        };
        let what = |text: String, colon: &str| match text.is_empty() {
            true => text,
            false => format!("{colon}{text}"),
        };
        let (code, Meaning { english: en, chinese: zh, .. }) = (self.code, self.meaning);
        let action = action(english(en.0), chinese(zh.0));
        let what = in_both(
            format!("WeChat refused ({code}){}", what(english(en.1), ": ")),
            format!("微信拒绝 ({code}){}", what(chinese(zh.1), "：")),
        );
        let message = format!("{action} {what}");
        f.write_str(&action_first(&match self.shown_text() {
            said if said.is_empty() => message,
            said => format!("{message} [{said}]"),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::table::{TABLE, UNKNOWN, meaning_of};
    use super::*;
    use crate::language::Language;

    fn refused(code: i64, text: &str) -> Refusal {
        Refusal::new(code, text, CallKind::RequestsToken, Platform::Official)
    }

    #[test]
    fn a_refusal_without_words_shows_none() {
        assert!(!refused(40125, "").to_string().contains('['));
        assert!(refused(40125, "bad").to_string().contains("[bad]"));
    }

    #[test]
    fn the_meaning_of_a_code_depends_on_call_and_platform() {
        let class = |call, platform| meaning_of(40001, call, platform).class;
        assert_eq!(class(CallKind::RequestsToken, Platform::Official), Class::Credentials);
        assert_eq!(class(CallKind::UsesToken, Platform::Official), Class::TokenDead);
        assert_eq!(class(CallKind::RequestsToken, Platform::Work), Class::Credentials);
        assert_eq!(class(CallKind::UsesToken, Platform::Work), Class::Unknown);
    }

    #[test]
    fn only_transient_errcodes_exit_as_unreachable() {
        assert_eq!(refused(-1, "system error").class().exit(), Exit::Unreachable);
        for row in TABLE.iter().filter(|row| row.class != Class::Transient) {
            assert_eq!(row.class.exit(), Exit::Refused, "{row:?}");
        }
        assert_eq!(refused(12345, "?").class().exit(), Exit::Refused);
    }

    #[test]
    fn the_retry_delay_follows_the_code_or_its_class() {
        let wait = |code, call, platform| Refusal::new(code, "", call, platform).retry_after();
        for (code, expected) in [
            (-1, None),
            (45033, Some(10)),
            (45011, Some(60)),
            (40164, Some(300)),
            (61004, Some(300)),
            (45035, Some(300)),
            (89501, Some(300)),
            (89503, Some(300)),
            (89505, Some(300)),
            (89507, Some(3600)),
            (89506, Some(86_400)),
            (45009, Some(3600)),
            (48006, Some(3600)),
            (40001, Some(3600)),
            (40013, Some(3600)),
            (40125, Some(3600)),
            (40243, Some(3600)),
            (41004, Some(3600)),
            (50004, Some(3600)),
            (61024, Some(3600)),
            (77777, Some(3600)),
        ] {
            for platform in [Platform::Official, Platform::Work] {
                let wait = wait(code, CallKind::RequestsToken, platform).map(|wait| wait.as_secs());
                assert_eq!(wait, expected, "{code} {platform:?}");
            }
        }
        assert_eq!(wait(60020, CallKind::UsesToken, Platform::Work), Some(5 * MINUTE));
        assert_eq!(wait(48001, CallKind::UsesToken, Platform::Official), Some(HOUR));
        assert_eq!(
            wait(40001, CallKind::UsesToken, Platform::Official),
            None,
            "a new token solves it"
        );
        // Transient errors and dead tokens have no delay, and all others have one.
        for row in TABLE {
            for (code, call) in
                row.codes.iter().flat_map(|c| row.calls.iter().map(move |it| (*c, *it)))
            {
                let at_once = matches!(row.class, Class::Transient | Class::TokenDead);
                assert_eq!(wait(code, call, row.platforms[0]).is_none(), at_once, "{code}");
            }
        }
    }

    #[test]
    fn credentials_and_quotas_hold_as_long_as_a_server_waits_and_an_address_a_minute() {
        let noon = UtcDateTime::UNIX_EPOCH + time::Duration::hours(12); // 20:00 in Beijing
        let holds = |code, call, platform, at: UtcDateTime| {
            let until = Refusal::new(code, "", call, platform).holds_until(at)?;
            Some((until - at).whole_seconds())
        };
        for (code, expected) in [
            (40001, Some(3600)),
            (40013, Some(3600)),
            (40125, Some(3600)),
            (40243, Some(3600)),
            (45009, Some(3600)),
            (45011, Some(60)),
            (40164, Some(60)),
            (61004, Some(60)),
            (89503, Some(300)),
            (89507, Some(3600)),
            (89506, Some(86_400)),
            (-1, None),
            (40066, None),
            (50004, None),
            (77777, None),
        ] {
            for platform in [Platform::Official, Platform::Work] {
                let held = holds(code, CallKind::RequestsToken, platform, noon);
                assert_eq!(held, expected, "{code} {platform:?}");
            }
        }
        assert_eq!(holds(60020, CallKind::UsesToken, Platform::Work, noon), Some(60));
        assert_eq!(holds(40001, CallKind::UsesToken, Platform::Official, noon), None);
        // The daily quota is full again at midnight in Beijing, which is 16:00 UTC. WeCom's is not a day's.
        for (minutes, expected) in [(-61, 3600), (-59, 59 * 60), (-1, 60), (0, 3600)] {
            let at = noon + time::Duration::minutes(4 * 60 + minutes);
            let held = holds(45009, CallKind::RequestsToken, Platform::Official, at);
            assert_eq!(held, Some(expected), "{minutes}");
            let held = holds(45009, CallKind::RequestsToken, Platform::Work, at);
            assert_eq!(held, Some(3600), "{minutes}");
        }
        // No run asks again before a process that goes on would have let it.
        for row in TABLE {
            for (code, call) in
                row.codes.iter().flat_map(|c| row.calls.iter().map(move |it| (*c, *it)))
            {
                let refusal = Refusal::new(code, "", call, row.platforms[0]);
                let held = refusal.holds_until(noon).map(|until| until - noon);
                let wait = refusal.retry_after();
                assert!(held.is_none_or(|held| wait.is_some_and(|wait| held <= wait)), "{code}");
            }
        }
    }

    #[test]
    fn every_row_has_a_remedy_in_both_languages() {
        for row in TABLE {
            let ((action, what), (action_zh, what_zh)) = (row.english, row.chinese);
            assert!(action.is_ascii() && what.is_ascii() && action.ends_with('.'), "{row:?}");
            assert!(action_zh.ends_with('。') && !row.codes.is_empty(), "{row:?}");
            assert_eq!(what.is_empty(), what_zh.is_empty(), "{row:?}");
        }
    }

    #[test]
    fn a_stable_account_over_its_quota_is_not_told_to_use_stable() {
        let said = |call| Refusal::new(45009, "", call, Platform::Official).to_string();
        assert!(said(CallKind::RequestsToken).contains("--api stable"));
        for call in [CallKind::RequestsStableToken, CallKind::UsesToken] {
            let said = said(call);
            assert!(!said.contains("stable") && said.contains("clear the quota"), "{said}");
        }
    }

    #[test]
    fn no_code_has_two_meanings_for_one_call() {
        for row in TABLE {
            for (code, call, platform) in row.codes.iter().flat_map(|code| {
                row.calls.iter().flat_map(move |call| {
                    row.platforms.iter().map(move |platform| (code, call, platform))
                })
            }) {
                assert!(
                    std::ptr::eq(meaning_of(*code, *call, *platform), row),
                    "{code} {call:?} {platform:?}"
                );
            }
        }
    }

    #[test]
    fn the_address_and_the_rid_are_found_in_every_known_form_of_errmsg() {
        for (text, ip) in [
            ("invalid ip 203.0.113.9, not in whitelist hint: [KcUQza01821501]", "203.0.113.9"),
            (
                "invalid ip 203.0.113.9 ipv6 ::ffff:203.0.113.9, not in whitelist rid: 6aac005a-01bfdbee-79769285",
                "203.0.113.9",
            ),
            ("invalid ip 2001:db8::7, not in whitelist", "2001:db8::7"),
            (
                "not allow to access from your ip, hint: [1], from ip: 203.0.113.9, more info at https://x",
                "203.0.113.9",
            ),
            ("access clientip is not registered requestIP: 203.0.113.9", "203.0.113.9"),
        ] {
            assert_eq!(refused(40164, text).ip(), Some(ip), "{text}");
        }
        let refusal = refused(40013, "invalid appid, rid: 6aac005a-01bfdbee-79769285");
        assert_eq!(refusal.rid(), Some("6aac005a-01bfdbee-79769285"));
        for text in [
            "",
            "rid: ",
            "rid: 6aac005a",
            "rid: 6aac005a-01bfdbee-7976928é",
            "invalid ip , not in whitelist",
            "invalid ip ....",
        ] {
            let refusal = refused(40164, text);
            assert_eq!((refusal.ip(), refusal.rid()), (None, None), "{text}");
        }
    }

    #[test]
    fn wechats_advice_on_the_quota_is_cut_out_of_its_text_and_nothing_else() {
        let advice = ", could get access_token by getStableAccessToken, more details at https://mmbizurl.cn/s/J";
        for (text, shown) in [
            (format!("reach max api daily quota limit{advice}"), "reach max api daily quota limit"),
            (
                format!("reach max{advice} rid: 6aac005a-01bfdbee-79769285"),
                "reach max rid: 6aac005a-01bfdbee-79769285",
            ),
            (format!("{advice} "), " "),
            ("more details at https://x y".to_owned(), "more details at https://x y"),
        ] {
            assert_eq!(refused(45009, &text).shown_text(), shown);
        }
    }

    #[test]
    fn a_rid_tells_when_wechat_answered() {
        let at = |text| refused(40013, text).answered_at();
        assert_eq!(at("invalid appid, rid: 6aac005a-01bfdbee-79769285"), Some(0x6aac_005a));
        assert_eq!(at("invalid appid, rid: ffffffff-01bfdbee-79769285"), Some(0xffff_ffff));
        assert_eq!(at("invalid appid"), None);
    }

    #[test]
    fn a_refusal_shows_remedies_in_both_languages_and_the_errmsg() {
        let text = "invalid ip 203.0.113.9 ipv6 ::ffff:203.0.113.9, not in whitelist rid: 6aac005a-01bfdbee-79769285";
        assert_eq!(
            Language::Both.resolve(&refused(40164, text).to_string()),
            "Add IP 203.0.113.9 to the account's API IP allowlist: WeChat refused (40164) \
             请将 IP 203.0.113.9 加入公众号或小程序的 API IP 白名单，数分钟后生效：微信拒绝 (40164) \
             [invalid ip 203.0.113.9, not in whitelist rid: 6aac005a-01bfdbee-79769285]"
        );
        let unknown = refused(99999, "new\u{1b}[31m rid: 6aac005a-01bfdbee-79769285").to_string();
        assert!(
            unknown.contains("Look up rid 6aac005a-01bfdbee-79769285 with WeChat: ")
                && unknown.contains("Unknown error 99999"),
            "{unknown}"
        );
        assert!(!unknown.contains('\u{1b}'), "{unknown}");
    }

    #[test]
    fn remedies_without_an_address_or_rid_are_complete_sentences() {
        let shown = refused(40164, "invalid ip").to_string();
        for words in
            ["Add the address by which this host reaches the Internet to", "请将本机出口 IP 加入"]
        {
            assert!(shown.contains(words), "{shown}");
        }
        let shown = refused(99999, "new").to_string();
        for words in ["Look it up in WeChat's documentation: ", "请查阅微信官方文档："] {
            assert!(shown.contains(words), "{shown}");
        }
        let texts = TABLE.iter().chain([&UNKNOWN]).flat_map(|row| [row.english.0, row.chinese.0]);
        for text in texts.map(|text| text.replace("IP {ip}", "")) {
            assert!(!text.contains("{ip}"), "{text}");
        }
    }
}
