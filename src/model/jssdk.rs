//! Signatures with which a page may call WeChat's JS-SDK: `wx.config`, and on WeCom `wx.agentConfig`. No clock and no random
//! numbers of its own. <https://developers.weixin.qq.com/doc/offiaccount/OA_Web_Apps/JS-SDK.html#62>

use std::fmt::Write;

use ring::digest::SHA1_FOR_LEGACY_USE_ONLY;
use serde::Serialize;
use time::UtcDateTime;

use crate::message::texts;
use crate::model::api::Api;
use crate::model::kind::TicketType;
use crate::model::secret::Secret;

/// The length of the longest URL that is signed, in bytes.
const MAX_URL: usize = 2048;

/// The characters of a nonce, and how many it has. As in WeChat's examples.
const NONCE_ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const NONCE_LENGTH: u32 = 16;

/// The ticket types that sign pages.
const JSAPI: &str = "jsapi";
const AGENT_CONFIG: &str = "agent_config";

pub(crate) mod faults {
    use super::texts;

    texts! {
        NO_AGENT =
            "Give the agentid of the app, a number.",
            "请填写应用的 AgentId，须为数字。";
        AGENT_WITH_JSAPI =
            "Leave out agentid, or ask for the type agent_config, with which it goes.",
            "请去掉 agentid，或把 type 改为 agent_config：二者配合使用。";
        WRONG_TYPE =
            "Ask for the type jsapi, or on work agent_config.",
            "type 须为 jsapi，企业微信还可用 agent_config。";
        NO_URL =
            "Give the url of the page, location.href without its fragment: there is none.",
            "请填写页面的 url，即 location.href 去掉 # 及其后的部分。";
        LONG_URL =
            "Shorten the url: it is longer than 2048 bytes.",
            "请缩短 url：超过 2048 字节。";
        NO_HOST =
            "Give the url of a page, which begins with https:// or http:// and a host: this is none.",
            "请填写页面的 url，以 https:// 或 http:// 加域名开头。";
        BROKEN_URL =
            "Give the url as location.href has it: this one has blanks or control characters.",
            "请填写与 location.href 一致的 url：其中有空格或控制字符。";
    }
}

/// What is to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageRequest {
    /// The page's URL, without its fragment.
    url: String,
    pub(crate) ticket: TicketType,
    /// The app of a corp, for `wx.agentConfig`.
    agent: Option<u64>,
}

/// What a page passes to `wx.config` or `wx.agentConfig`.
#[derive(Serialize)]
struct PageConfig<'a> {
    #[serde(rename = "appId", skip_serializing_if = "Option::is_none")]
    appid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    corpid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agentid: Option<u64>,
    timestamp: i64,
    #[serde(rename = "nonceStr")]
    nonce: &'a str,
    signature: &'a str,
}

impl PageRequest {
    /// Returns the request for this URL, ticket type and agent, each as it was given. Empty ones are left out. The error says
    /// what is wrong, and repeats nothing of it.
    pub(crate) fn parse(url: &str, ticket: &str, agent: &str) -> Result<PageRequest, &'static str> {
        let url = url.split_once('#').map_or(url, |(before, _)| before);
        let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let is_host_missing = host.is_none_or(|rest| rest.is_empty() || rest.starts_with('/'));
        let is_broken = |c: char| c.is_control() || c.is_whitespace() || c == '\u{fffd}';
        let agent = match agent {
            "" => None,
            text => Some(text.parse().map_err(|_| faults::NO_AGENT)?),
        };
        let ticket = match (ticket, agent) {
            ("", None) => JSAPI,
            ("", Some(_)) => AGENT_CONFIG,
            (JSAPI, Some(_)) => {
                return Err(faults::AGENT_WITH_JSAPI);
            }
            (JSAPI | AGENT_CONFIG, _) => ticket,
            _ => {
                return Err(faults::WRONG_TYPE);
            }
        };
        let ticket = TicketType::parse(ticket).ok_or(faults::WRONG_TYPE)?;
        if url.is_empty() {
            Err(faults::NO_URL)
        } else if url.len() > MAX_URL {
            Err(faults::LONG_URL)
        } else if is_host_missing {
            Err(faults::NO_HOST)
        } else if url.contains(is_broken) {
            Err(faults::BROKEN_URL)
        } else {
            Ok(PageRequest { url: url.to_owned(), ticket, agent })
        }
    }

    /// Fails if accounts on `api` have no tickets of this type.
    pub(crate) fn check_api(&self, api: Api) -> Result<(), String> {
        TicketType::on(api, &self.ticket.to_string()).map(drop)
    }

    /// Returns what the page passes to `wx.config` or `wx.agentConfig`, as JSON without a trailing newline. `random` makes
    /// the nonce.
    pub(crate) fn sign(
        &self,
        appid: &str,
        ticket: &Secret,
        at: UtcDateTime,
        random: [u64; 2],
    ) -> String {
        let (timestamp, nonce) = (at.unix_timestamp(), nonce(random));
        let is_agent = self.ticket.to_string() == AGENT_CONFIG;
        let config = PageConfig {
            appid: (!is_agent).then_some(appid),
            corpid: is_agent.then_some(appid),
            agentid: self.agent,
            timestamp,
            nonce: &nonce,
            signature: &signature(ticket, &nonce, timestamp, &self.url),
        };
        serde_json::to_string(&config).unwrap_or_default() // Strings and numbers always serialize.
    }
}

/// Returns the signature in hex digits.
fn signature(ticket: &Secret, nonce: &str, timestamp: i64, url: &str) -> String {
    let text = Secret::new(format!(
        "jsapi_ticket={}&noncestr={nonce}&timestamp={timestamp}&url={url}",
        ticket.expose()
    ));
    let digest = ring::digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, text.expose().as_bytes());
    digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}"); // A String takes everything.
        hex
    })
}

fn nonce(random: [u64; 2]) -> String {
    let [high, low] = random.map(u128::from);
    let number = high << 64 | low;
    let digit = |place: u32| {
        let index = number / 62u128.pow(place) % 62;
        char::from(NONCE_ALPHABET[usize::try_from(index).unwrap_or_default()])
    };
    (0..NONCE_LENGTH).map(digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICKET: &str =
        "sM4AOVdWfPE4DxkXGEs8VMCPGGVi4C3VM0P37wVUCFvkVAy_90u5h9nbSlYy3-Sl-HhTdfl2fzFy1AOcHKP7qg";
    const URL: &str = "http://mp.weixin.qq.com?params=value";

    fn ticket() -> Secret {
        Secret::new(TICKET.to_owned())
    }

    fn at(secs: i64) -> UtcDateTime {
        UtcDateTime::UNIX_EPOCH + time::Duration::seconds(secs)
    }

    /// The values of appendix 1 of WeChat's documentation.
    #[test]
    fn the_signature_is_that_of_wechats_example() {
        let signature = signature(&ticket(), "Wm3WZYTPz0wzccnW", 1_414_587_457, URL);
        assert_eq!(signature, "0f9de62fce790f9a083d5c99e95740ceb90c27ed");
    }

    #[test]
    fn a_page_gets_what_wx_config_takes_and_an_app_of_a_corp_what_wx_agent_config_takes() {
        let signed = |ticket_type, agent| {
            let request = PageRequest::parse(URL, ticket_type, agent).unwrap();
            let json = request.sign("wx1", &ticket(), at(1_414_587_457), [1, 2]);
            serde_json::from_str::<serde_json::Value>(&json).unwrap()
        };
        let config = signed("", "");
        assert_eq!(
            (&config["appId"], &config["timestamp"]),
            (&"wx1".into(), &1_414_587_457.into())
        );
        let nonce = config["nonceStr"].as_str().unwrap();
        assert_eq!(config["signature"], signature(&ticket(), nonce, 1_414_587_457, URL));
        assert_eq!(config.as_object().unwrap().len(), 4);
        let agent = signed("", "1000002");
        assert_eq!((&agent["corpid"], &agent["agentid"]), (&"wx1".into(), &1_000_002.into()));
        assert_eq!(agent["signature"], config["signature"], "the ticket alone differs");
        assert_eq!(agent.as_object().unwrap().len(), 5);
        assert_eq!(signed("agent_config", "").as_object().unwrap().len(), 4);
    }

    #[test]
    fn a_url_is_signed_as_it_is_but_for_its_fragment() {
        for (url, signed) in [
            (URL, URL),
            ("https://shop.example/", "https://shop.example/"),
            (
                "https://shop.example/a?b=%E5%BE%AE&c#/route?d#e",
                "https://shop.example/a?b=%E5%BE%AE&c",
            ),
            ("https://shop.example#", "https://shop.example"),
            ("https://shop.example/微信?a=b+c", "https://shop.example/微信?a=b+c"),
        ] {
            assert_eq!(PageRequest::parse(url, "", "").unwrap().url, signed);
        }
    }

    #[test]
    fn the_longest_url_has_2048_bytes() {
        let url = |length: usize| format!("{:x<length$}", "https://shop.example/");
        assert!(PageRequest::parse(&url(2048), "", "").is_ok());
        assert_eq!(PageRequest::parse(&url(2049), "", ""), Err(faults::LONG_URL));
    }

    #[test]
    fn a_page_of_an_agent_is_signed_on_work_only() {
        let page = |kind| PageRequest::parse(URL, kind, "").unwrap();
        for (kind, api, is_signed) in [
            ("jsapi", Api::Stable, true),
            ("jsapi", Api::Work, true),
            ("agent_config", Api::Work, true),
            ("agent_config", Api::Classic, false),
        ] {
            assert_eq!(page(kind).check_api(api).is_ok(), is_signed, "{kind} {api:?}");
        }
    }

    #[test]
    fn what_is_no_url_of_a_page_is_refused() {
        let long = format!("https://shop.example/{}", "x".repeat(2048));
        for url in [
            "",
            "#x",
            "shop.example/",
            "//shop.example/",
            "ftp://shop.example/",
            "javascript:alert(1)",
            "https://",
            "https:///a",
            "http://#a",
            "https://shop.example/a b",
            "https://shop.example/\na",
            "https://shop.example/\u{fffd}",
            &long,
        ] {
            let refused = PageRequest::parse(url, "", "").unwrap_err();
            assert!(refused.contains("url"), "{url}: {refused}");
        }
        for (ticket, agent) in
            [("wx_card", ""), ("jsapi", "1"), ("", "x"), ("", "-1"), ("../x", "")]
        {
            assert!(PageRequest::parse(URL, ticket, agent).is_err(), "{ticket} {agent}");
        }
    }

    #[test]
    fn a_nonce_is_16_letters_and_digits_and_another_one_for_another_number() {
        let nonces: std::collections::BTreeSet<_> =
            (0..1000).map(|n: u64| nonce([n, n.wrapping_mul(0x9e37_79b9_7f4a_7c15)])).collect();
        assert_eq!(nonces.len(), 1000);
        assert!(
            nonces.iter().all(|it| it.len() == 16 && it.bytes().all(|b| b.is_ascii_alphanumeric()))
        );
        assert_eq!(nonce([0, 0]), "0".repeat(16));
        // In base 62, the last digit first.
        assert_eq!(nonce([0, 62 * 7 + 3]), format!("37{}", "0".repeat(14)));
        assert_eq!(nonce([1, 0]), "GYHA61aHgyL00000");
        assert_eq!(nonce([3, 5]), "reqUI3kq2w310000");
        assert_eq!(nonce([u64::MAX, u64::MAX]).len(), 16);
    }
}
