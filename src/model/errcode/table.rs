//! What each errcode means: its class, and the remedy in both languages. Data and lookup only. The code decides, never
//! the text that comes with it, which WeChat has changed often.

use super::{CallKind, Class, Platform};

/// One row of the table. `{ip}`, `{code}` and `{rid}` in a remedy are filled in from the answer.
#[derive(Debug)]
pub(super) struct Meaning {
    pub(super) codes: &'static [i64],
    pub(super) calls: &'static [CallKind],
    pub(super) platforms: &'static [Platform],
    pub(super) class: Class,
    pub(super) english: &'static str,
    pub(super) chinese: &'static str,
}

const ANY_CALL: &[CallKind] = &[CallKind::RequestsToken, CallKind::UsesToken];
const REQUEST: &[CallKind] = &[CallKind::RequestsToken];
const USE: &[CallKind] = &[CallKind::UsesToken];
const BOTH: &[Platform] = &[Platform::Official, Platform::Work];
const OFFICIAL: &[Platform] = &[Platform::Official];
const WORK: &[Platform] = &[Platform::Work];

const fn row(
    codes: &'static [i64],
    calls: &'static [CallKind],
    platforms: &'static [Platform],
    class: Class,
    english: &'static str,
    chinese: &'static str,
) -> Meaning {
    Meaning { codes, calls, platforms, class, english, chinese }
}

/// The first matching row counts. Sources: Tencent's error tables,
/// <https://developers.weixin.qq.com/doc/oplatform/Return_codes/Return_code_descriptions_new.html> and
/// <https://developer.work.weixin.qq.com/document/path/90455>, and codes that SDKs report from the field.
#[rustfmt::skip]
pub(super) static TABLE: &[Meaning] = &[
    row(&[-1], ANY_CALL, BOTH, Class::Transient,
        "WeChat is busy; try again shortly.",
        "微信系统繁忙，请稍后重试。"),
    row(&[40001], REQUEST, OFFICIAL, Class::Credentials,
        "AppSecret does not match this AppID; copy it again or reset it.",
        "AppSecret 与 AppID 不匹配，请重新核对或重置。"),
    row(&[40001], REQUEST, WORK, Class::Credentials,
        "Secret is wrong, was reset, or the app is disabled; do not retry, it gets the IP banned for an hour.",
        "Secret 错误、已被重置或应用已停用；切勿反复重试，否则 IP 会被封禁一小时。"),
    row(&[40002], REQUEST, BOTH, Class::Request,
        "grant_type must be client_credential.",
        "grant_type 必须为 client_credential。"),
    row(&[40013], REQUEST, BOTH, Class::Credentials,
        "AppID/CorpID is wrong; check case and spaces.",
        "AppID／CorpID 不正确，注意大小写和空格。"),
    row(&[40066], ANY_CALL, BOTH, Class::Request,
        "Wrong API path or host; check --base-url.",
        "接口地址错误，请检查域名与路径（--base-url）。"),
    row(&[40091], REQUEST, WORK, Class::Credentials,
        "Secret belongs to another corp.",
        "Secret 无效，可能属于其他企业。"),
    row(&[40125], REQUEST, BOTH, Class::Credentials,
        "AppSecret is wrong; copy it again, or reset it in the console.",
        "AppSecret 错误，请在后台重新复制或重置。"),
    row(&[40243], REQUEST, BOTH, Class::Credentials,
        "AppSecret is frozen; an admin must unfreeze it (acts in about 10 minutes).",
        "AppSecret 已冻结，请管理员解冻，约 10 分钟后生效。"),
    row(&[41002, 41004], REQUEST, BOTH, Class::Request,
        "AppID (41002) or secret (41004) was not sent; does a proxy change requests?",
        "缺少 AppID（41002）或 Secret（41004）参数，请检查代理是否改写了请求。"),
    row(&[41001], USE, BOTH, Class::Request,
        "No access_token in the URL.",
        "URL 中缺少 access_token。"),
    row(&[43001, 43002, 43003], ANY_CALL, BOTH, Class::Request,
        "Wrong method (GET/POST), or HTTPS required; does a proxy change requests?",
        "请求方法错误，或必须使用 HTTPS，请检查代理是否改写了请求。"),
    row(&[44002, 47001], REQUEST, BOTH, Class::Request,
        "Body is empty or not valid JSON; does a proxy change requests?",
        "请求体为空或不是合法 JSON，请检查代理是否改写了请求。"),
    row(&[40164], ANY_CALL, BOTH, Class::Allowlist,
        "Add IP {ip} (as WeChat sees it) to the account's API IP allowlist.",
        "请将 IP {ip} 加入公众号／小程序的 API IP 白名单，数分钟后生效。"),
    row(&[61004, 45035], ANY_CALL, BOTH, Class::Allowlist,
        "Register IP {ip} in the platform's (61004) or shop's (45035) allowlist.",
        "请在第三方平台（61004）／小店（45035）后台登记 IP {ip}。"),
    row(&[60020], ANY_CALL, WORK, Class::Allowlist,
        "Add IP {ip} to the app's trusted IPs in WeCom.",
        "请把 IP {ip} 加入应用的“企业可信IP”，约 1 分钟后生效。"),
    row(&[89503], REQUEST, BOTH, Class::Allowlist,
        "The account admin must approve this IP in WeChat; or allowlist it.",
        "需公众号管理员在微信中确认此 IP，或将其加入白名单。"),
    row(&[89501, 89502, 89504, 89505], REQUEST, BOTH, Class::Allowlist,
        "Approval for this IP is already pending; the account admin must confirm it.",
        "该 IP 的确认请求待管理员处理，请稍候。"),
    row(&[89507], REQUEST, BOTH, Class::Allowlist,
        "Admin refused this IP; blocked for 1 hour.",
        "管理员已拒绝此 IP，1 小时内不可用。"),
    row(&[89506], REQUEST, BOTH, Class::Allowlist,
        "Admin refused this IP twice; blocked for 24 hours.",
        "管理员两次拒绝此 IP，24 小时内不可用。"),
    row(&[45011], ANY_CALL, BOTH, Class::Quota,
        "Too many calls this minute; try again in the next.",
        "分钟级频率超限，请下一分钟再试。"),
    row(&[45009], ANY_CALL, OFFICIAL, Class::Quota,
        "Daily quota is used up; --api stable has a far larger one, or clear the quota (10 per month).",
        "当日调用次数已用完；建议改用 stable_token（--api stable），或清零（每月 10 次）。"),
    row(&[45009], ANY_CALL, WORK, Class::Quota,
        "Rate limited; repeated wrong secrets ban this IP for an hour.",
        "频率超限；Secret 多次错误会封禁该 IP 一小时。"),
    row(&[45033], ANY_CALL, WORK, Class::Quota,
        "Too many parallel calls.",
        "并发超限，请降低并发。"),
    row(&[48006], ANY_CALL, BOTH, Class::Quota,
        "Monthly clear-quota allowance is spent.",
        "本月清零次数已用完。"),
    row(&[48001, 48002], USE, BOTH, Class::Permission,
        "The account/app lacks permission for this API.",
        "该账号／应用无此接口权限。"),
    row(&[301002], USE, WORK, Class::Permission,
        "The token is another app's, which lacks permission for this API.",
        "该 token 属于其他应用，无此接口权限。"),
    row(&[48004], USE, BOTH, Class::Permission,
        "API blocked for violations; see the admin console.",
        "接口因违规被封禁，请登录后台查看。"),
    row(&[50002, 50003, 50004, 50007], ANY_CALL, BOTH, Class::Account,
        "Account limited (50002), app disabled (50003), token access denied (50004) or account frozen (50007); see the admin console.",
        "账号受限（50002）、应用停用（50003）、禁止使用 token 接口（50004）或账号已冻结（50007），请登录后台查看。"),
    row(&[61024], REQUEST, BOTH, Class::Credentials,
        "This AppID is a third-party platform; it needs component tokens, which wxtoken does not fetch.",
        "该 AppID 属于第三方平台，请使用 component token（wxtoken 不支持）。"),
    row(&[61005, 61006, 61011, 61023], ANY_CALL, BOTH, Class::Credentials,
        "Component ticket or refresh token invalid; re-authorize (wxtoken does not do third-party platforms).",
        "第三方平台票据或刷新令牌失效，请重新获取授权（wxtoken 不支持第三方平台）。"),
    row(&[40001], USE, OFFICIAL, Class::TokenDead,
        "Token was superseded or is invalid; ask for a new one. Another program may be refreshing it.",
        "token 已失效或被更新，请重新获取；可能有其他程序在刷新。"),
    row(&[42001], USE, BOTH, Class::TokenDead,
        "Token expired; ask for a new one.",
        "token 已过期，请重新获取。"),
    row(&[40014], USE, BOTH, Class::TokenDead,
        "Token invalid; ask for a new one (check that it belongs to this account/app).",
        "token 无效，请重新获取，并确认属于当前账号／应用。"),
    row(&[42007], USE, OFFICIAL, Class::Credentials,
        "User token void after a password change; the user must authorize again. Not an app token.",
        "用户修改密码导致授权失效，需用户重新授权。"),
];

/// The meaning of a code that is not in the table.
pub(super) static UNKNOWN: Meaning = row(
    &[],
    ANY_CALL,
    BOTH,
    Class::Unknown,
    "Unknown error {code}; look up rid {rid} with WeChat.",
    "未知错误 {code}；可用 rid {rid} 查询。",
);

/// Returns what `code` means in the answer to a call of this kind on `platform`.
pub(super) fn meaning_of(code: i64, call: CallKind, platform: Platform) -> &'static Meaning {
    TABLE
        .iter()
        .find(|row| {
            row.codes.contains(&code)
                && row.calls.contains(&call)
                && row.platforms.contains(&platform)
        })
        .unwrap_or(&UNKNOWN)
}
