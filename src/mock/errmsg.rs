//! What WeChat says beside an errcode. The texts are for programs that look at them; nobody should decide by them.

use super::calls::Api;

/// The address that refusals for an address name; one that is reserved for documentation.
const CALLER: &str = "203.0.113.9";

/// WeChat's text for `errcode`, without the rid or hint. Those of accounts under punishment or waiting for a confirmation were
/// never seen in the wild: they are in WeChat's manner only.
pub(crate) fn of(errcode: i64, api: Api) -> String {
    let known = match errcode {
        40001 if api == Api::Work => "invalid credential",
        40013 if api == Api::Work => "invalid corpid",
        41002 if api == Api::Work => "corpid missing",
        41004 if api == Api::Work => "corpsecret missing",
        45009 if api == Api::Work => "api freq out of limit",
        45033 if api == Api::Work => "api concurrent out of limit",
        60020 if api == Api::Work => "not allow to access from your ip",
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
        45009 if api == Api::Token => {
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
    known.to_owned()
}

/// The same with its rid, as it stands in an answer.
pub(crate) fn with_rid(errcode: i64, api: Api, rid: &str) -> String {
    format!("{} rid: {rid}", of(errcode, api))
}

/// WeCom's way: a hint of 25 digits, the caller's address, and where to read on.
pub(crate) fn with_hint(errcode: i64, hint: &str) -> String {
    format!(
        "{}, hint: [{hint}], from ip: {CALLER}, \
         more info at https://open.work.weixin.qq.com/devtool/query?e={errcode}",
        of(errcode, Api::Work)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spent_day_is_told_in_other_words_on_the_classic_api() {
        assert_eq!(
            with_rid(45009, Api::StableToken, "x"),
            "reach max api daily quota limit rid: x"
        );
        assert!(of(45009, Api::Token).contains("getStableAccessToken"));
    }
}
