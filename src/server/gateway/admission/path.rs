//! The path of a request to the gateway: its form, the account that it may name, and how WeChat's API at it is treated.
//! A path in an ambiguous form is refused, and never repaired: a repair could get round a rule.

use super::refusal::GatewayRefusal;
use crate::model::client_key::api_scope::is_at_or_below;
use crate::model::errcode::Platform;

/// What begins the path of a request that names its account: `/gateway/ACCOUNT/cgi-bin/…`.
const GATEWAY: &str = "/gateway/";

/// The first segments of this server's own paths, which are never passed on.
const OWN: [&str; 7] = ["gateway", "healthz", "jssdk", "metrics", "readyz", "ticket", "token"];

/// How an API is treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    /// It takes the account's token.
    Ordinary,
    /// It takes a token of another kind, which is the client's own affair.
    Foreign(Platform),
    Refused(GatewayRefusal),
}

/// Calls that make tokens or take secrets. Those that are not answered here are refused: a secret or a new token would pass.
const TOKEN_MAKING: &[&str] = &[
    "/cgi-bin/token",
    "/cgi-bin/stable_token",
    "/cgi-bin/gettoken",
    "/cgi-bin/component/api_authorizer_token",
    "/cgi-bin/component/api_component_token",
    "/cgi-bin/component/api_query_auth",
    "/cgi-bin/component/api_start_push_ticket",
    "/cgi-bin/clear_quota/v2",
    "/cgi-bin/component/clear_quota/v2",
    // Of WeCom. The first one makes the token of another corp, which no account here has.
    "/cgi-bin/corpgroup/corp/gettoken",
    "/cgi-bin/service/get_corp_token",
    "/cgi-bin/service/get_permanent_code",
    "/cgi-bin/service/get_provider_token",
    "/cgi-bin/service/get_suite_token",
    "/cgi-bin/service/v2/get_permanent_code",
];

/// Calls that answer with an earlier request, its token included, whichever client made it:
/// <https://developers.weixin.qq.com/doc/offiaccount/openApi/get_rid_info.html>.
const REQUEST_SHOWING: &[&str] = &["/cgi-bin/openapi/rid"];

/// Calls with the token in their body and inside a signature, where it cannot be replaced.
const SIGNED_WITH_TOKEN: &[&str] = &["/cgi-bin/midas"];

/// Calls that take the token of an end user, of a third-party platform, or of a provider of apps, some under the name
/// `access_token`.
const FOREIGN: &[(&str, Platform)] = &[
    ("/sns", Platform::Official),
    ("/cgi-bin/component", Platform::Official),
    ("/cgi-bin/service", Platform::Work),
];

/// The path of a request to the gateway, in a form that has only one meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ApiPath<'a> {
    /// The account that it names.
    pub(super) account: Option<&'a str>,
    /// The path at WeChat.
    pub(super) path: &'a str,
}

/// Returns the account and the rest of a path that begins with `/gateway/ACCOUNT/`.
pub(crate) fn split_account(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix(GATEWAY)?;
    let slash = rest.find('/')?;
    Some(rest.split_at(slash))
}

impl<'a> ApiPath<'a> {
    /// Parses a path as it came. Fails for one in a form that could be read in two ways, and for one that cannot be
    /// WeChat's.
    pub(super) fn parse(path: &'a str) -> Result<ApiPath<'a>, GatewayRefusal> {
        let (account, path) = match split_account(path) {
            Some((account, path)) => (Some(account), path),
            None => (None, path),
        };
        // Also no `%`, `;` or backslash, by which a path could name another API than it seems to.
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        let is_segment = |segment: &str| {
            !segment.is_empty() && !segment.starts_with('.') && segment.bytes().all(is_plain)
        };
        let rest = path.strip_prefix('/').ok_or(GatewayRefusal::BadPath)?;
        if !rest.split('/').all(is_segment) {
            return Err(GatewayRefusal::BadPath);
        }
        // Each API of WeChat has a family and a name.
        let (first, _) = rest.split_once('/').ok_or(GatewayRefusal::NoSuchPath)?;
        if OWN.iter().any(|own| first.eq_ignore_ascii_case(own)) {
            return Err(GatewayRefusal::NoSuchPath);
        }
        Ok(ApiPath { account, path })
    }

    /// Returns how the API at this path is treated.
    pub(super) fn treatment(&self) -> Treatment {
        let is_of = |patterns: &[&str]| patterns.iter().any(|it| is_at_or_below(self.path, it));
        if is_of(TOKEN_MAKING) {
            return Treatment::Refused(GatewayRefusal::MakesTokens);
        }
        if is_of(REQUEST_SHOWING) {
            return Treatment::Refused(GatewayRefusal::ShowsRequests);
        }
        if is_of(SIGNED_WITH_TOKEN) {
            return Treatment::Refused(GatewayRefusal::SignedWithToken);
        }
        let foreign = FOREIGN.iter().find(|(pattern, _)| is_at_or_below(self.path, pattern));
        foreign.map_or(Treatment::Ordinary, |(_, platform)| Treatment::Foreign(*platform))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_can_be_read_in_two_ways_is_refused_and_not_repaired() {
        for path in [
            "/cgi-bin/%6denu/delete",
            "/cgi-bin//menu/get",
            "//cgi-bin/menu/get",
            "/cgi-bin/menu/get/",
            "/cgi-bin/../menu",
            "/cgi-bin/./menu",
            "/cgi-bin/.menu",
            "/cgi-bin/menu;x/get",
            "/cgi-bin/menu\\get",
            "/cgi-bin/menü/get",
            "/cgi-bin/menu get",
            "/cgi-bin/menu/get\0",
            "/cgi-bin/menu:80/get",
            "/cgi-bin/menu@x/get",
            "cgi-bin/menu/get",
            "*",
            "",
            "/",
            "/gateway/shop//cgi-bin/menu/get",
            "/gateway/shop/",
        ] {
            assert_eq!(ApiPath::parse(path), Err(GatewayRefusal::BadPath), "{path}");
        }
    }

    #[test]
    fn a_path_that_is_none_of_wechats_is_refused() {
        for path in [
            "/tokens",
            "/favicon.ico",
            "/token/shop",
            "/metrics/x",
            "/Ticket/x",
            "/gateway/shop",
            "/gateway/shop/token",
            "/gateway/shop/token/x",
            "/gateway/shop/gateway/mini/cgi-bin/menu/get",
        ] {
            assert_eq!(ApiPath::parse(path), Err(GatewayRefusal::NoSuchPath), "{path}");
        }
    }

    #[test]
    fn a_path_may_name_its_account() {
        for (path, account, api) in [
            ("/cgi-bin/menu/get", None, "/cgi-bin/menu/get"),
            ("/gateway/shop/cgi-bin/menu/get", Some("shop"), "/cgi-bin/menu/get"),
            ("/wxa/getwxacode", None, "/wxa/getwxacode"),
            ("/anything.new/x-y_z", None, "/anything.new/x-y_z"),
        ] {
            assert_eq!(ApiPath::parse(path), Ok(ApiPath { account, path: api }), "{path}");
        }
    }

    #[test]
    fn calls_that_make_tokens_and_calls_with_tokens_of_another_kind_are_told_apart() {
        use GatewayRefusal::{MakesTokens, ShowsRequests, SignedWithToken};
        for (path, expected) in [
            ("/cgi-bin/menu/get", Treatment::Ordinary),
            ("/cgi-bin/tokens/x", Treatment::Ordinary),
            ("/wxa/getwxacode", Treatment::Ordinary),
            ("/cgi-bin/token", Treatment::Refused(MakesTokens)),
            ("/cgi-bin/Token", Treatment::Refused(MakesTokens)),
            ("/cgi-bin/stable_token", Treatment::Refused(MakesTokens)),
            ("/cgi-bin/token/x", Treatment::Refused(MakesTokens)),
            ("/cgi-bin/clear_quota", Treatment::Ordinary),
            ("/cgi-bin/clear_quota/v2", Treatment::Refused(MakesTokens)),
            ("/cgi-bin/component/api_component_token", Treatment::Refused(MakesTokens)),
            ("/cgi-bin/service/get_suite_token", Treatment::Refused(MakesTokens)),
            ("/cgi-bin/corpgroup/corp/gettoken", Treatment::Refused(MakesTokens)),
            ("/cgi-bin/corpgroup/corp/list_app_share_info", Treatment::Ordinary),
            ("/cgi-bin/openapi/rid/get", Treatment::Refused(ShowsRequests)),
            ("/cgi-bin/openapi/quota/get", Treatment::Ordinary),
            ("/cgi-bin/midas/getbalance", Treatment::Refused(SignedWithToken)),
            ("/sns/userinfo", Treatment::Foreign(Platform::Official)),
            ("/SNS/userinfo", Treatment::Foreign(Platform::Official)),
            ("/cgi-bin/component/api_create_preauthcode", Treatment::Foreign(Platform::Official)),
            ("/cgi-bin/service/get_login_info", Treatment::Foreign(Platform::Work)),
        ] {
            assert_eq!(ApiPath::parse(path).unwrap().treatment(), expected, "{path}");
        }
    }
}
