//! WeChat's refusals: what an errcode means, what the process's status says of it, and what a person can do.
//! Data and look-up; never asks anybody. Decided by the code, never by the text, which WeChat has changed often.

use std::time::Duration;

use crate::error::Exit;
use crate::log::{printable, without_long_words};

/// What kind of trouble an errcode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// It passes by itself in seconds; worth another try at once.
    Transient,
    /// AppID or AppSecret are wrong.
    Credentials,
    /// The request itself is wrong: a wrong host, or a proxy that changed it.
    Request,
    /// The caller's address is not allowed, or waits for an admin.
    Allowlist,
    /// Called too often; it passes with time.
    Quota,
    /// The account may not use this API.
    Permission,
    /// The account is limited, frozen or closed.
    Account,
    /// The token that was used is dead: ask for a new one, once.
    TokenDead,
    /// A code that is in none of WeChat's tables that we know.
    Unknown,
}

impl Class {
    /// What the process's status says of it.
    pub(crate) fn exit(self) -> Exit {
        match self {
            Class::Transient => Exit::Unreachable,
            _ => Exit::Refused,
        }
    }
}

/// What the call was that got the errcode. 40001 is a wrong secret when asking, a dead token when using.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// One that asks for a token.
    Asking,
    /// One that uses a token.
    Using,
}

/// Whose errcodes they are; the same number can mean different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Platform {
    /// 公众号, 服务号, 小程序: api.weixin.qq.com.
    Official,
    /// 企业微信: qyapi.weixin.qq.com.
    Work,
}

/// One line of the table. `{ip}`, `{code}` and `{rid}` in a remedy are filled in from the answer.
#[derive(Debug)]
pub(crate) struct Meaning {
    codes: &'static [i64],
    calls: &'static [Call],
    platforms: &'static [Platform],
    pub(crate) class: Class,
    english: &'static str,
    chinese: &'static str,
}

const ANY_CALL: &[Call] = &[Call::Asking, Call::Using];
const ASKING: &[Call] = &[Call::Asking];
const USING: &[Call] = &[Call::Using];
const BOTH: &[Platform] = &[Platform::Official, Platform::Work];
const OFFICIAL: &[Platform] = &[Platform::Official];
const WORK: &[Platform] = &[Platform::Work];

const fn meaning(
    codes: &'static [i64],
    calls: &'static [Call],
    platforms: &'static [Platform],
    class: Class,
    english: &'static str,
    chinese: &'static str,
) -> Meaning {
    Meaning { codes, calls, platforms, class, english, chinese }
}

/// The first line that fits counts. Sources: Tencent's error tables, <https://developers.weixin.qq.com/doc/oplatform/Return_codes/Return_code_descriptions_new.html>
/// and <https://developer.work.weixin.qq.com/document/path/90455>, and what SDKs have met in the field.
#[rustfmt::skip]
static TABLE: &[Meaning] = &[
    meaning(&[-1], ANY_CALL, BOTH, Class::Transient,
        "WeChat is busy; try again shortly.",
        "微信系统繁忙，请稍后重试。"),
    meaning(&[40001], ASKING, OFFICIAL, Class::Credentials,
        "AppSecret does not match this AppID; copy it again or reset it.",
        "AppSecret 与 AppID 不匹配，请重新核对或重置。"),
    meaning(&[40001], ASKING, WORK, Class::Credentials,
        "Secret is wrong, was reset, or the app is disabled; do not retry, it gets the IP banned for an hour.",
        "Secret 错误、已被重置或应用已停用；切勿反复重试，否则 IP 会被封禁一小时。"),
    meaning(&[40002], ASKING, BOTH, Class::Request,
        "grant_type must be client_credential.",
        "grant_type 必须为 client_credential。"),
    meaning(&[40013], ASKING, BOTH, Class::Credentials,
        "AppID/CorpID is wrong; check case and spaces.",
        "AppID／CorpID 不正确，注意大小写和空格。"),
    meaning(&[40066], ANY_CALL, BOTH, Class::Request,
        "Wrong API path or host; check --base-url.",
        "接口地址错误，请检查域名与路径（--base-url）。"),
    meaning(&[40091], ASKING, WORK, Class::Credentials,
        "Secret belongs to another corp.",
        "Secret 无效，可能属于其他企业。"),
    meaning(&[40125], ASKING, BOTH, Class::Credentials,
        "AppSecret is wrong; copy it again, or reset it in the console.",
        "AppSecret 错误，请在后台重新复制或重置。"),
    meaning(&[40243], ASKING, BOTH, Class::Credentials,
        "AppSecret is frozen; an admin must unfreeze it (acts in about 10 minutes).",
        "AppSecret 已冻结，请管理员解冻，约 10 分钟后生效。"),
    meaning(&[41002, 41004], ASKING, BOTH, Class::Request,
        "AppID (41002) or secret (41004) was not sent; does a proxy change requests?",
        "缺少 AppID（41002）或 Secret（41004）参数，请检查代理是否改写了请求。"),
    meaning(&[41001], USING, BOTH, Class::Request,
        "No access_token in the URL.",
        "URL 中缺少 access_token。"),
    meaning(&[43001, 43002, 43003], ANY_CALL, BOTH, Class::Request,
        "Wrong method (GET/POST), or HTTPS required; does a proxy change requests?",
        "请求方法错误，或必须使用 HTTPS，请检查代理是否改写了请求。"),
    meaning(&[44002, 47001], ASKING, BOTH, Class::Request,
        "Body is empty or not valid JSON; does a proxy change requests?",
        "请求体为空或不是合法 JSON，请检查代理是否改写了请求。"),
    meaning(&[40164], ANY_CALL, BOTH, Class::Allowlist,
        "Add IP {ip} (as WeChat sees it) to the account's API IP allowlist.",
        "请将 IP {ip} 加入公众号／小程序的 API IP 白名单，数分钟后生效。"),
    meaning(&[61004, 45035], ANY_CALL, BOTH, Class::Allowlist,
        "Register IP {ip} in the platform's (61004) or shop's (45035) allowlist.",
        "请在第三方平台（61004）／小店（45035）后台登记 IP {ip}。"),
    meaning(&[60020], ANY_CALL, WORK, Class::Allowlist,
        "Add IP {ip} to the app's trusted IPs in WeCom.",
        "请把 IP {ip} 加入应用的“企业可信IP”，约 1 分钟后生效。"),
    meaning(&[89503], ASKING, BOTH, Class::Allowlist,
        "The account admin must approve this IP in WeChat; or allowlist it.",
        "需公众号管理员在微信中确认此 IP，或将其加入白名单。"),
    meaning(&[89501, 89502, 89504, 89505], ASKING, BOTH, Class::Allowlist,
        "Approval for this IP is already pending; the account admin must confirm it.",
        "该 IP 的确认请求待管理员处理，请稍候。"),
    meaning(&[89507], ASKING, BOTH, Class::Allowlist,
        "Admin refused this IP; blocked for 1 hour.",
        "管理员已拒绝此 IP，1 小时内不可用。"),
    meaning(&[89506], ASKING, BOTH, Class::Allowlist,
        "Admin refused this IP twice; blocked for 24 hours.",
        "管理员两次拒绝此 IP，24 小时内不可用。"),
    meaning(&[45011], ANY_CALL, BOTH, Class::Quota,
        "Too many calls this minute; try again in the next.",
        "分钟级频率超限，请下一分钟再试。"),
    meaning(&[45009], ANY_CALL, OFFICIAL, Class::Quota,
        "Daily quota is used up; --api stable has a far larger one, or clear the quota (10 per month).",
        "当日调用次数已用完；建议改用 stable_token（--api stable），或清零（每月 10 次）。"),
    meaning(&[45009], ANY_CALL, WORK, Class::Quota,
        "Rate limited; repeated wrong secrets ban this IP for an hour.",
        "频率超限；Secret 多次错误会封禁该 IP 一小时。"),
    meaning(&[45033], ANY_CALL, WORK, Class::Quota,
        "Too many parallel calls.",
        "并发超限，请降低并发。"),
    meaning(&[48006], ANY_CALL, BOTH, Class::Quota,
        "Monthly clear-quota allowance is spent.",
        "本月清零次数已用完。"),
    meaning(&[48001, 48002], USING, BOTH, Class::Permission,
        "The account/app lacks permission for this API.",
        "该账号／应用无此接口权限。"),
    meaning(&[301002], USING, WORK, Class::Permission,
        "The token is another app's, which lacks permission for this API.",
        "该 token 属于其他应用，无此接口权限。"),
    meaning(&[48004], USING, BOTH, Class::Permission,
        "API blocked for violations; see the admin console.",
        "接口因违规被封禁，请登录后台查看。"),
    meaning(&[50002, 50003, 50004, 50007], ANY_CALL, BOTH, Class::Account,
        "Account limited (50002), app disabled (50003), token access denied (50004) or account frozen (50007); see the admin console.",
        "账号受限（50002）、应用停用（50003）、禁止使用 token 接口（50004）或账号已冻结（50007），请登录后台查看。"),
    meaning(&[61024], ASKING, BOTH, Class::Credentials,
        "This AppID is a third-party platform; it needs component tokens, which wxtoken does not fetch.",
        "该 AppID 属于第三方平台，请使用 component token（wxtoken 不支持）。"),
    meaning(&[61005, 61006, 61011, 61023], ANY_CALL, BOTH, Class::Credentials,
        "Component ticket or refresh token invalid; re-authorize (wxtoken does not do third-party platforms).",
        "第三方平台票据或刷新令牌失效，请重新获取授权（wxtoken 不支持第三方平台）。"),
    meaning(&[40001], USING, OFFICIAL, Class::TokenDead,
        "Token was superseded or is invalid; ask for a new one. Another program may be refreshing it.",
        "token 已失效或被更新，请重新获取；可能有其他程序在刷新。"),
    meaning(&[42001], USING, BOTH, Class::TokenDead,
        "Token expired; ask for a new one.",
        "token 已过期，请重新获取。"),
    meaning(&[40014], USING, BOTH, Class::TokenDead,
        "Token invalid; ask for a new one (check that it belongs to this account/app).",
        "token 无效，请重新获取，并确认属于当前账号／应用。"),
    meaning(&[42007], USING, OFFICIAL, Class::Credentials,
        "User token void after a password change; the user must authorize again. Not an app token.",
        "用户修改密码导致授权失效，需用户重新授权。"),
];

static UNKNOWN: Meaning = meaning(
    &[],
    ANY_CALL,
    BOTH,
    Class::Unknown,
    "Unknown error {code}; look up rid {rid} with WeChat.",
    "未知错误 {code}；可用 rid {rid} 查询。",
);

/// What `code` means in answer to `call` on `platform`.
pub(crate) fn meaning_of(code: i64, call: Call, platform: Platform) -> &'static Meaning {
    TABLE
        .iter()
        .find(|row| {
            row.codes.contains(&code)
                && row.calls.contains(&call)
                && row.platforms.contains(&platform)
        })
        .unwrap_or(&UNKNOWN)
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// How long it is pointless to ask again after a refusal, where its class alone does not tell.
static WAITS: &[(&[i64], Duration)] = &[
    // The window of this quota is a minute.
    (&[45011], MINUTE),
    // Calls that run side by side are over in seconds.
    (&[45033], Duration::from_secs(10)),
    // WeChat says itself for how long an address that an admin refused is blocked: once, and twice.
    (&[89507], HOUR),
    (&[89506], Duration::from_secs(24 * 60 * 60)),
];

/// A refusal as WeChat answered it, its text made safe to print.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: i64,
    meaning: &'static Meaning,
    text: String,
}

impl Refusal {
    /// `text` is WeChat's `errmsg`: from outside, of any length and content; somebody on the way may have put a secret or
    /// a token there.
    pub(crate) fn new(code: i64, text: &str, call: Call, platform: Platform) -> Refusal {
        Refusal {
            code,
            meaning: meaning_of(code, call, platform),
            text: printable(&without_long_words(text), 300),
        }
    }

    pub(crate) fn class(&self) -> Class {
        self.meaning.class
    }

    /// How long it is pointless to ask again; `None` if it may help within seconds.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        if let Some((_, wait)) = WAITS.iter().find(|(codes, _)| codes.contains(&self.code)) {
            return Some(*wait);
        }
        match self.class() {
            Class::Transient | Class::TokenDead => None,
            // An admin acts, and within minutes WeChat knows it; asking meanwhile costs nothing but the call.
            Class::Allowlist => Some(5 * MINUTE),
            // A day's quota ends with the day, and when that is only WeChat knows; an hour is late enough.
            Class::Quota => Some(HOUR),
            // A person must mend it, and will say so or start us anew. Until then every call could do harm: WeCom
            // bans an address for an hour that goes on with a wrong secret.
            Class::Credentials
            | Class::Request
            | Class::Permission
            | Class::Account
            | Class::Unknown => Some(HOUR),
        }
    }

    /// The caller's address as WeChat saw it, when the text tells. IPv4 where it tells both.
    pub(crate) fn ip(&self) -> Option<&str> {
        ["invalid ip ", "from ip: ", "requestIP: "].iter().find_map(|lead| {
            let rest = self.text.split_once(lead)?.1.trim_start();
            let end = rest
                .find(|c: char| !(c.is_ascii_hexdigit() || matches!(c, '.' | ':')))
                .unwrap_or(rest.len());
            let ip = rest[..end].trim_end_matches(['.', ':']);
            ip.parse::<std::net::IpAddr>().is_ok().then_some(ip)
        })
    }

    /// WeChat's name for this very call: three groups of 8 hex digits, the first of them the Unix time.
    fn rid(&self) -> Option<&str> {
        let rest = self.text.split_once("rid: ")?.1;
        let rid = rest.get(..26)?;
        let is_rid = rid
            .bytes()
            .enumerate()
            .all(|(i, b)| if i % 9 == 8 { b == b'-' } else { b.is_ascii_hexdigit() });
        is_rid.then_some(rid)
    }

    /// When WeChat answered, by its own clock, when the text tells; in seconds since 1970.
    pub(crate) fn answered_at(&self) -> Option<i64> {
        i64::from_str_radix(self.rid()?.get(..8)?, 16).ok()
    }
}

impl std::fmt::Display for Refusal {
    /// `WeChat refused (40164): what to do 该怎么做 [what WeChat said]`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Where the answer lacks them: the address is to be found out, and there is nothing to look up but the code.
        let fill = |remedy: &str, no_ip: &str, (by_rid, no_rid): (&str, &str)| {
            let remedy = match self.ip() {
                Some(ip) => remedy.replace("{ip}", ip),
                None => remedy.replace("IP {ip}", no_ip),
            };
            let remedy = match self.rid() {
                Some(rid) => remedy.replace("{rid}", rid),
                None => remedy.replace(by_rid, no_rid),
            };
            remedy.replace("{code}", &self.code.to_string())
        };
        let english = fill(
            self.meaning.english,
            "the address by which this host reaches the Internet",
            ("look up rid {rid} with WeChat", "look it up in WeChat's documentation"),
        );
        let chinese = fill(
            self.meaning.chinese,
            "本机出口 IP",
            ("可用 rid {rid} 查询", "请查阅微信官方文档"),
        );
        write!(f, "WeChat refused ({}): {english} {chinese} [{}]", self.code, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(code: i64, text: &str) -> Refusal {
        Refusal::new(code, text, Call::Asking, Platform::Official)
    }

    #[test]
    fn the_same_code_means_another_thing_to_who_asks_and_to_who_uses() {
        let class = |call, platform| meaning_of(40001, call, platform).class;
        assert_eq!(class(Call::Asking, Platform::Official), Class::Credentials);
        assert_eq!(class(Call::Using, Platform::Official), Class::TokenDead);
        assert_eq!(class(Call::Asking, Platform::Work), Class::Credentials);
        assert_eq!(class(Call::Using, Platform::Work), Class::Unknown);
    }

    #[test]
    fn only_a_busy_wechat_is_worth_another_try() {
        assert_eq!(asking(-1, "system error").class().exit(), Exit::Unreachable);
        for row in TABLE.iter().filter(|row| row.class != Class::Transient) {
            assert_eq!(row.class.exit(), Exit::Refused, "{row:?}");
        }
        assert_eq!(asking(12345, "?").class().exit(), Exit::Refused);
    }

    #[test]
    fn how_long_asking_again_is_pointless_depends_on_who_must_act() {
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
                let wait = wait(code, Call::Asking, platform).map(|wait| wait.as_secs());
                assert_eq!(wait, expected, "{code} {platform:?}");
            }
        }
        assert_eq!(wait(60020, Call::Using, Platform::Work), Some(5 * MINUTE));
        assert_eq!(wait(48001, Call::Using, Platform::Official), Some(HOUR));
        assert_eq!(wait(40001, Call::Using, Platform::Official), None, "a new one is the cure");
        // Whatever is worth another try within seconds is worth it now, and nothing else is.
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
    fn every_row_has_a_remedy_in_both_languages() {
        for row in TABLE {
            assert!(row.english.is_ascii() && row.english.ends_with(['.', '?']), "{row:?}");
            assert!(row.chinese.contains('。') && !row.codes.is_empty(), "{row:?}");
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
    fn the_address_and_the_rid_are_read_from_every_shape_that_wechat_has_used() {
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
            assert_eq!(asking(40164, text).ip(), Some(ip), "{text}");
        }
        let refusal = asking(40013, "invalid appid, rid: 6aac005a-01bfdbee-79769285");
        assert_eq!(refusal.rid(), Some("6aac005a-01bfdbee-79769285"));
        for text in [
            "",
            "rid: ",
            "rid: 6aac005a",
            "rid: 6aac005a-01bfdbee-7976928é",
            "invalid ip , not in whitelist",
            "invalid ip ....",
        ] {
            let refusal = asking(40164, text);
            assert_eq!((refusal.ip(), refusal.rid()), (None, None), "{text}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_do_in_both_languages_and_what_wechat_said() {
        let text = "invalid ip 203.0.113.9 ipv6 ::ffff:203.0.113.9, not in whitelist rid: 6aac005a-01bfdbee-79769285";
        assert_eq!(
            asking(40164, text).to_string(),
            format!(
                "WeChat refused (40164): Add IP 203.0.113.9 (as WeChat sees it) to the account's API IP allowlist. \
                 请将 IP 203.0.113.9 加入公众号／小程序的 API IP 白名单，数分钟后生效。 [{text}]"
            )
        );
        let unknown = asking(99999, "new\u{1b}[31m rid: 6aac005a-01bfdbee-79769285").to_string();
        assert!(
            unknown.contains("Unknown error 99999; look up rid 6aac005a-01bfdbee-79769285"),
            "{unknown}"
        );
        assert!(!unknown.contains('\u{1b}'), "{unknown}");
    }

    #[test]
    fn where_wechat_names_neither_address_nor_call_the_sentence_is_still_whole() {
        let said = asking(40164, "invalid ip").to_string();
        for words in
            ["Add the address by which this host reaches the Internet (as", "请将 本机出口 IP 加入"]
        {
            assert!(said.contains(words), "{said}");
        }
        let said = asking(99999, "new").to_string();
        for words in ["look it up in WeChat's documentation.", "99999；请查阅微信官方文档。"]
        {
            assert!(said.contains(words), "{said}");
        }
        let texts = TABLE.iter().chain([&UNKNOWN]).flat_map(|row| [row.english, row.chinese]);
        for said in texts.map(|text| text.replace("IP {ip}", "")) {
            assert!(!said.contains("{ip}"), "{said}");
        }
    }
}
