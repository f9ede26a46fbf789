//! What each errcode means: its class, and what to do and what happened in both languages. Data and lookup only. The code decides, never
//! the text that comes with it, which WeChat has changed often.

use super::{CallKind, Class, Platform};

/// One row of the table. `{ip}`, `{code}` and `{rid}` are filled in from the answer.
#[derive(Debug)]
pub(crate) struct Meaning {
    pub(crate) codes: &'static [i64],
    pub(super) calls: &'static [CallKind],
    pub(super) platforms: &'static [Platform],
    pub(super) class: Class,
    pub(crate) english: Remedy,
    pub(crate) chinese: Remedy,
}

/// What to do, and what the code means; empty where the first says it all.
pub(crate) type Remedy = (&'static str, &'static str);

const ANY_CALL: &[CallKind] =
    &[CallKind::RequestsToken, CallKind::RequestsStableToken, CallKind::UsesToken];
const REQUEST: &[CallKind] = &[CallKind::RequestsToken, CallKind::RequestsStableToken];
const CLASSIC_REQUEST: &[CallKind] = &[CallKind::RequestsToken];
const STABLE_REQUEST: &[CallKind] = &[CallKind::RequestsStableToken];
const USE: &[CallKind] = &[CallKind::UsesToken];
const BOTH: &[Platform] = &[Platform::Official, Platform::Work];
const OFFICIAL: &[Platform] = &[Platform::Official];
const WORK: &[Platform] = &[Platform::Work];

const fn row(
    codes: &'static [i64],
    calls: &'static [CallKind],
    platforms: &'static [Platform],
    class: Class,
    english: Remedy,
    chinese: Remedy,
) -> Meaning {
    Meaning { codes, calls, platforms, class, english, chinese }
}

/// The first matching row counts. Sources: Tencent's error tables,
/// <https://developers.weixin.qq.com/doc/oplatform/Return_codes/Return_code_descriptions_new.html> and
/// <https://developer.work.weixin.qq.com/document/path/90455>, and codes that SDKs report from the field.
#[rustfmt::skip]
pub(crate) static TABLE: &[Meaning] = &[
    row(&[-1], ANY_CALL, BOTH, Class::Transient,
        ("Try again shortly.", "WeChat is busy"),
        ("请稍后重试。", "微信系统繁忙")),
    row(&[40001], REQUEST, OFFICIAL, Class::Credentials,
        ("Copy this AppID's AppSecret, or reset it.", ""),
        ("请重新复制该 AppID 的 AppSecret，或重置。", "")),
    row(&[40001], REQUEST, WORK, Class::Credentials,
        ("Copy the secret again, and do not retry: that gets the IP banned for an hour.", "Secret is wrong, was reset, or the app is disabled"),
        ("请重新核对 Secret，切勿反复重试，否则 IP 会被封禁一小时。", "Secret 错误、已被重置或应用已停用")),
    row(&[40002], REQUEST, BOTH, Class::Request,
        ("Check whether a proxy changes requests.", "grant_type must be client_credential"),
        ("请检查代理是否改写了请求。", "grant_type 必须为 client_credential")),
    row(&[40013], REQUEST, BOTH, Class::Credentials,
        ("Check the AppID or CorpID, its case and blanks.", "AppID/CorpID is wrong"),
        ("请核对 AppID 或企业 ID，注意大小写和空格。", "AppID 或企业 ID 不正确")),
    row(&[40066], ANY_CALL, BOTH, Class::Request,
        ("Check --base-url.", "Wrong API path or host"),
        ("请检查域名与路径（--base-url）。", "接口地址错误")),
    row(&[40091], REQUEST, WORK, Class::Credentials,
        ("Give the secret of an app of this corp.", "Secret belongs to another corp"),
        ("请使用本企业应用的 Secret。", "Secret 无效，可能属于其他企业")),
    row(&[40125], REQUEST, BOTH, Class::Credentials,
        ("Copy the AppSecret again, or reset it in the console.", "AppSecret is wrong"),
        ("请在后台重新复制或重置 AppSecret。", "AppSecret 错误")),
    row(&[40243], REQUEST, BOTH, Class::Credentials,
        ("Have an admin unfreeze the AppSecret, and wait 10 minutes.", "AppSecret is frozen"),
        ("请管理员解冻 AppSecret，约 10 分钟后生效。", "AppSecret 已冻结")),
    row(&[41002, 41004], REQUEST, BOTH, Class::Request,
        ("Check whether a proxy changes requests.", "AppID (41002) or secret (41004) was not sent"),
        ("请检查代理是否改写了请求。", "缺少 AppID（41002）或 Secret（41004）参数")),
    row(&[41001], USE, BOTH, Class::Request,
        ("Send the access_token in the URL.", "No access_token in the URL"),
        ("请在 URL 中带上 access_token。", "URL 中缺少 access_token")),
    row(&[43001, 43002, 43003], ANY_CALL, BOTH, Class::Request,
        ("Check whether a proxy changes requests.", "Wrong method (GET/POST), or HTTPS required"),
        ("请检查代理是否改写了请求。", "请求方法错误，或必须使用 HTTPS")),
    row(&[44002, 47001], REQUEST, BOTH, Class::Request,
        ("Check whether a proxy changes requests.", "Body is empty or not valid JSON"),
        ("请检查代理是否改写了请求。", "请求体为空或不是合法 JSON")),
    row(&[40164], ANY_CALL, BOTH, Class::Allowlist,
        ("Add IP {ip} to the account's API IP allowlist.", ""),
        ("请将 IP {ip} 加入公众号或小程序的 API IP 白名单，数分钟后生效。", "")),
    row(&[61004, 45035], ANY_CALL, BOTH, Class::Allowlist,
        ("Register IP {ip} in the platform's (61004) or shop's (45035) allowlist.", ""),
        ("请在第三方平台（61004）或小店（45035）后台登记 IP {ip}。", "")),
    row(&[60020], ANY_CALL, WORK, Class::Allowlist,
        ("Add IP {ip} to the app's trusted IPs in WeCom.", ""),
        ("请把 IP {ip} 加入应用的“企业可信IP”，约 1 分钟后生效。", "")),
    row(&[89503], REQUEST, BOTH, Class::Allowlist,
        ("Have the account's admin approve it in WeChat, or allowlist it.", "the account's admin must approve this IP"),
        ("请公众号管理员在微信中确认此 IP，或将其加入白名单。", "该 IP 需管理员确认")),
    row(&[89501, 89502, 89504, 89505], REQUEST, BOTH, Class::Allowlist,
        ("Have the account's admin confirm it in WeChat.", "approval for this IP is already pending"),
        ("请管理员在微信中确认。", "该 IP 的确认请求待管理员处理")),
    row(&[89507], REQUEST, BOTH, Class::Allowlist,
        ("Add the IP to the allowlist, or wait an hour.", "Admin refused this IP; blocked for 1 hour"),
        ("请将该 IP 加入白名单，或等待 1 小时。", "管理员已拒绝此 IP，1 小时内不可用")),
    row(&[89506], REQUEST, BOTH, Class::Allowlist,
        ("Add the IP to the allowlist, or wait 24 hours.", "Admin refused this IP twice; blocked for 24 hours"),
        ("请将该 IP 加入白名单，或等待 24 小时。", "管理员两次拒绝此 IP，24 小时内不可用")),
    row(&[45011], ANY_CALL, BOTH, Class::Quota,
        ("Try again in the next minute.", "Too many calls this minute"),
        ("请下一分钟再试。", "分钟级频率超限")),
    row(&[45009], CLASSIC_REQUEST, OFFICIAL, Class::Quota,
        ("Use --api stable, or find what asks so often.", "Daily quota used up"),
        ("请改用 --api stable（额度更大），或查明是谁在频繁获取；北京时间 0 点恢复。", "当日获取 token 的次数已用完")),
    row(&[45009], STABLE_REQUEST, OFFICIAL, Class::Quota,
        ("Find what asks so often, or clear the quota.", "Daily quota used up"),
        ("请查明是谁在频繁获取，急用时在后台清零接口调用次数；北京时间 0 点恢复。", "当日获取 token 的次数已用完")),
    row(&[45009], USE, OFFICIAL, Class::Quota,
        ("Find what calls this API so often, or clear the quota.", "Daily quota used up"),
        ("请查明是谁在频繁调用该接口，急用时在后台清零接口调用次数；北京时间 0 点恢复。", "该接口当日的调用次数已用完")),
    row(&[45009], ANY_CALL, WORK, Class::Quota,
        ("Wait an hour, and check the secret: repeated wrong ones ban this IP.", "Rate limited"),
        ("请一小时后再试，并核对 Secret：多次错误会封禁该 IP。", "频率超限")),
    row(&[45033], ANY_CALL, WORK, Class::Quota,
        ("Make fewer calls at once.", "Too many parallel calls"),
        ("请降低并发。", "并发超限")),
    row(&[48006], ANY_CALL, BOTH, Class::Quota,
        ("Wait for the next month.", "Monthly clear-quota allowance is spent"),
        ("请等到下月。", "本月清零次数已用完")),
    row(&[48001, 48002], USE, BOTH, Class::Permission,
        ("Give the account or app permission for this API in the console.", "it has none"),
        ("请在后台为该账号或应用开通此接口权限。", "无此接口权限")),
    row(&[301002], USE, WORK, Class::Permission,
        ("Use a token of the app that may call this API.", "The token is another app's, which lacks permission"),
        ("请使用有权限的应用的 token。", "该 token 属于其他应用，无此接口权限")),
    row(&[48004], USE, BOTH, Class::Permission,
        ("See the admin console.", "API blocked for violations"),
        ("请登录后台查看。", "接口因违规被封禁")),
    row(&[50002, 50003, 50004, 50007], ANY_CALL, BOTH, Class::Account,
        ("See the admin console.", "Account limited (50002), app disabled (50003), token access denied (50004) or account frozen (50007)"),
        ("请登录后台查看。", "账号受限（50002）、应用停用（50003）、禁止使用 token 接口（50004）或账号已冻结（50007）")),
    row(&[61024], REQUEST, BOTH, Class::Credentials,
        ("Give the AppID of an account: wxtoken does not fetch component tokens.", "This AppID is a third-party platform's"),
        ("请使用账号的 AppID（wxtoken 不支持 component token）。", "该 AppID 属于第三方平台")),
    row(&[61005, 61006, 61011, 61023], ANY_CALL, BOTH, Class::Credentials,
        ("Authorize again; wxtoken does not do third-party platforms.", "Component ticket or refresh token invalid"),
        ("请重新获取授权（wxtoken 不支持第三方平台）。", "第三方平台的 ticket 或 refresh token 失效")),
    row(&[40001], USE, OFFICIAL, Class::TokenDead,
        ("Ask for a new token; another program may be refreshing it.", "Token was superseded or is invalid"),
        ("请重新获取 token；可能有其他程序在刷新。", "token 已失效或被更新")),
    row(&[42001], USE, BOTH, Class::TokenDead,
        ("Ask for a new token.", "Token expired"),
        ("请重新获取 token。", "token 已过期")),
    row(&[40014], USE, BOTH, Class::TokenDead,
        ("Ask for a new token, and check that it belongs to this account or app.", "Token invalid"),
        ("请重新获取 token，并确认属于当前账号或应用。", "token 无效")),
    row(&[42007], USE, OFFICIAL, Class::Credentials,
        ("Have the user authorize again.", "User token void after a password change; it is no app token"),
        ("请用户重新授权。", "用户修改密码导致授权失效（并非应用 token）")),
];

/// The meaning of a code that is not in the table.
pub(crate) static UNKNOWN: Meaning = row(
    &[],
    ANY_CALL,
    BOTH,
    Class::Unknown,
    ("Look up rid {rid} with WeChat.", "Unknown error {code}"),
    ("请用 rid {rid} 查询。", "未知错误 {code}"),
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
