//! WeChat's and WeCom's texts for errcodes. Clients decide by the code; the texts serve tests of what is shown to users.

/// The address that refusals of an address name; reserved for documentation.
const CALLER: &str = "203.0.113.9";

/// Which API's texts a refusal uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wording {
    /// GET /cgi-bin/token: has a text of its own for a spent quota.
    Classic,
    /// WeChat's other APIs.
    WeChat,
    /// WeCom's APIs.
    WeCom,
}

/// Returns the text for `errcode`, without the rid or hint that follows it. The texts for punished accounts and for addresses
/// that wait for a confirmation are made up in WeChat's style: no real answer with one is known.
pub(crate) fn text(errcode: i64, wording: Wording) -> String {
    let text = match errcode {
        40001 if wording == Wording::WeCom => "invalid credential",
        40013 if wording == Wording::WeCom => "invalid corpid",
        41002 if wording == Wording::WeCom => "corpid missing",
        41004 if wording == Wording::WeCom => "corpsecret missing",
        45009 if wording == Wording::WeCom => "api freq out of limit",
        45033 if wording == Wording::WeCom => "api concurrent out of limit",
        60020 if wording == Wording::WeCom => "not allow to access from your ip",
        -1 => "system error",
        0 => "ok",
        40001 => "invalid credential, access_token is invalid or not latest",
        40002 => "invalid grant_type",
        40013 => "invalid appid",
        40014 => "invalid access_token",
        40058 => "invalid parameter",
        40066 => "invalid url",
        40097 => "invalid args",
        40125 => "invalid appsecret",
        40164 => return format!("invalid ip {CALLER} ipv6 ::ffff:{CALLER}, not in whitelist"),
        40243 => "appsecret is frozen",
        41001 => "access_token missing",
        41002 => "appid missing",
        41004 => "appsecret missing",
        42001 => "access_token expired",
        43001 => "require GET method",
        43002 => "require POST method",
        43003 => "require https",
        44002 => "empty post data",
        45009 if wording == Wording::Classic => {
            "reach max api daily quota limit, could get access_token by getStableAccessToken, \
             more details at https://mmbizurl.cn/s/JtxxFh33r"
        }
        45009 => "reach max api daily quota limit",
        45011 => "api minute-quota reach limit, must slower, retry next minute",
        47001 => "data format error",
        48001 => "api unauthorized",
        50002 => "user limited",
        50004 => "access token api forbidden, maybe for punishment",
        50007 => "account frozen",
        61004 => return format!("access clientip is not registered requestIP: {CALLER}"),
        61024 => "appid is a component, use api_component_token",
        89501 => return format!("ip {CALLER} is waiting for the confirmation of admin"),
        89503 => return format!("ip {CALLER} requires the confirmation of admin"),
        89506 => return format!("ip {CALLER} was refused by admin twice, blocked for 24 hours"),
        89507 => return format!("ip {CALLER} was refused by admin, blocked for 1 hour"),
        _ => return format!("error {errcode} of the stand-in"),
    };
    text.to_owned()
}

/// Returns WeChat's whole errmsg: the text and the rid (request ID).
pub(crate) fn with_rid(errcode: i64, wording: Wording, rid: &str) -> String {
    format!("{} rid: {rid}", text(errcode, wording))
}

/// Returns WeCom's whole errmsg: the text, a hint of 25 digits, the caller's address and a link.
pub(crate) fn with_hint(errcode: i64, hint: &str) -> String {
    format!(
        "{}, hint: [{hint}], from ip: {CALLER}, \
         more info at https://open.work.weixin.qq.com/devtool/query?e={errcode}",
        text(errcode, Wording::WeCom)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classic_api_has_a_text_of_its_own_for_a_spent_quota() {
        assert_eq!(with_rid(45009, Wording::WeChat, "x"), "reach max api daily quota limit rid: x");
        assert!(text(45009, Wording::Classic).contains("getStableAccessToken"));
    }
}
