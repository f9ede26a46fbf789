//! What the page says of which condition.

use std::collections::BTreeMap;

use super::*;
use crate::model::status::{HookStatus, Problem};

const NOW: i64 = 1_795_578_720; // 2026-11-25T03:52:00Z

const REFUSAL: &str = "WeChat refused (40164): Add IP 203.0.113.9 (as WeChat sees it) to the account's API IP \
    allowlist. 请将 IP 203.0.113.9 加入公众号或小程序的 API IP 白名单，数分钟后生效。 [invalid ip 203.0.113.9 ipv6 \
    ::ffff:203.0.113.9, not in whitelist rid: 6aac005a-01bfdbee-79769285]";

fn at(offset: i64) -> UtcDateTime {
    UtcDateTime::from_unix_timestamp(NOW + offset).unwrap()
}

/// A document with so many seconds of its two hours left.
fn document(life: i64, fingerprint: &str) -> DocumentStatus {
    DocumentStatus {
        place: "/d/shop.json".to_owned(),
        published: Ok(Published {
            appid: "wx1".to_owned(),
            created_at: at(life - 7200),
            expires_at: at(life),
            expires_in: Duration::from_secs(7200),
            life: Duration::from_secs(life.max(0) as u64),
            is_due: life <= 300,
            fingerprint: fingerprint.to_owned(),
        }),
        is_dead: false,
        failure: None,
        trouble_since: None,
        refusal: None,
    }
}

fn failure(message: &str) -> RefreshFailure {
    RefreshFailure { at: at(-200), message: message.to_owned() }
}

/// An account of a server that does not refresh.
fn account(name: &str, life: i64) -> AccountStatus {
    AccountStatus {
        name: name.to_owned(),
        appid: Some("wx0123456789abcdef".to_owned()),
        token: document(life, "1f93603d"),
        tickets: Vec::new(),
        refresh: None,
    }
}

/// The same account of a server that refreshes, with its last failure.
fn refreshed(mut account: AccountStatus, message: Option<&str>) -> AccountStatus {
    account.token.failure = message.map(failure);
    let refresh = RefreshStatus {
        succeeded_at: account.token.published.as_ref().ok().map(|token| token.created_at),
        next_at: Some(at(45)),
        attempts: Vec::new(),
        hook: None,
        trouble_hook: None,
    };
    AccountStatus { refresh: Some(refresh), ..account }
}

fn dead(mut account: AccountStatus) -> AccountStatus {
    account.token.is_dead = true;
    account
}

/// The same account with a jsapi ticket that has so much life left, and its last failure.
fn with_ticket(
    mut account: AccountStatus,
    life: Option<i64>,
    message: Option<&str>,
) -> AccountStatus {
    let mut ticket = document(life.unwrap_or_default(), "71c4e700");
    if life.is_none() {
        ticket.published = Err(Problem::Missing);
    }
    ticket.failure = message.map(failure);
    account.tickets.push((TicketType::parse("jsapi").unwrap(), ticket));
    account
}

fn missing(name: &str) -> AccountStatus {
    let mut account = account(name, 0);
    account.token.published = Err(Problem::Missing);
    account
}

/// The zone of the server.
fn zone() -> LocalZone {
    LocalZone::for_tests("CST-8")
}

/// The page for a reader whose language is unknown.
fn page_of(accounts: &[AccountStatus]) -> String {
    html(accounts, Language::Both, &zone(), at(0))
}

/// The headline of the page about these accounts.
fn headline(accounts: &[AccountStatus]) -> String {
    let page = page_of(accounts);
    let from = page.find("<header").unwrap();
    page[from..page.find("</header>").unwrap()].to_owned()
}

#[test]
fn the_headline_says_at_once_whether_all_is_well() {
    for (accounts, class, sign, words) in [
        (
            vec![account("shop", 3000)],
            "well",
            "✓",
            ["All is well", "一切正常", "shop has a live token"],
        ),
        (
            vec![account("a", 3000), account("b", 200)],
            "well",
            "✓",
            ["All is well", "一切正常", "2 accounts, each"],
        ),
        (
            vec![account("a", 179), account("b", 200)],
            "wary",
            "!",
            ["1 of 2 accounts works, but not for long", "尽快处理", "<p>a</p>"],
        ),
        (
            vec![refreshed(account("a", 3000), Some(REFUSAL))],
            "wary",
            "!",
            ["not for long", "尽快处理", "<p>a</p>"],
        ),
        (
            // The token of the last one is renewed.
            vec![
                refreshed(account("a", 3000), Some(REFUSAL)),
                account("b", 179),
                with_ticket(account("c", 3000), None, None),
            ],
            "wary",
            "!",
            ["2 of 3 accounts work, but not for long", "尽快处理", "<p>b, a</p>"],
        ),
        (
            vec![account("a", 179), account("b", 0)],
            "ill",
            "✗",
            ["1 of 2 accounts has no token", "2 个账号中有 1 个没有可用的 token", "<p>b</p>"],
        ),
        (
            vec![missing("a"), account("b", 0)],
            "ill",
            "✗",
            ["2 of 2 accounts have no token", "没有可用的 token", "<p>a, b</p>"],
        ),
        (vec![], "well", "✓", ["No account to show", "没有可显示的账号", "<p></p>"]),
    ] {
        let headline = headline(&accounts);
        assert!(
            headline.contains(&format!("class=\"{class}\"")) && headline.contains(sign),
            "{headline}"
        );
        for word in words {
            assert!(headline.contains(word), "{word:?} is not in {headline}");
        }
        assert!(page_of(&accounts).contains(&format!("<title>{sign} ")));
    }
}

#[test]
fn of_many_accounts_in_trouble_a_few_are_named() {
    let accounts: Vec<AccountStatus> = (0..30).map(|n| missing(&format!("account-{n}"))).collect();
    let headline = headline(&accounts);
    assert!(
        headline.contains("30 of 30 accounts have no token")
            && headline.contains("account-4 and 25 more")
            && !headline.contains("account-7"),
        "{headline}"
    );
}

#[test]
fn the_worst_accounts_come_first_and_otherwise_the_order_stays() {
    let page = page_of(&[
        account("a", 3000),
        account("b", 100),
        account("c", 3000),
        missing("d"),
        account("e", 0),
    ]);
    let names: Vec<&str> = page
        .split("<h2>")
        .skip(1)
        .filter_map(|rest| rest.split_once(" <b>"))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["d", "e", "b", "a", "c"]);
}

#[test]
fn an_account_in_trouble_is_shown_with_the_reason_and_a_remedy() {
    let page_of = |account: AccountStatus| page_of(&[account]);
    for (account, words) in [
        (
            account("a", 100),
            &["ends soon 即将到期", "1 min 40 s", "timer or cron job", "定时任务"][..],
        ),
        (
            account("a", -500),
            &["expired 已过期", "8 min 20 s", "past its end", "timer or cron job", "定时任务"],
        ),
        (missing("a"), &["no token 没有 token", "wxtoken status</code> says which"]),
        (
            refreshed(account("a", 3000), Some(REFUSAL)),
            &["not renewed 刷新失败", "203.0.113.9 加入公众号", "3 min 20 s ago"],
        ),
        (
            refreshed(account("a", -500), Some(REFUSAL)),
            &["expired 已过期", "203.0.113.9 加入公众号", "in 45 s", "45 秒后"],
        ),
        (
            dead(refreshed(account("a", 3000), None)),
            &["dead 已失效", "50 min", "too early", "width:0.0%", "same AppSecret", "其他程序"],
        ),
        (
            dead(refreshed(account("a", 3000), Some(REFUSAL))),
            &["dead 已失效", "203.0.113.9 加入公众号"],
        ),
        (
            refreshed(missing("a"), Some(REFUSAL)),
            &["no token 没有 token", "203.0.113.9 加入公众号", "not yet 尚无"],
        ),
    ] {
        let page = page_of(account).replace("<span lang=\"zh-CN\">", "").replace("</span>", "");
        for word in words {
            assert!(page.contains(word), "{word:?} is not in {page}");
        }
    }
    let well = page_of(refreshed(account("a", 3000), None));
    assert!(!well.contains("<section>"), "{well}");
    assert!(
        !page_of(refreshed(account("a", 100), None)).contains("cron"),
        "this server refreshes by itself"
    );
}

#[test]
fn the_page_is_in_the_language_of_the_reader() {
    let accounts = [refreshed(account("a", -500), None), missing("b")];
    let english = html(&accounts, Language::English, &zone(), at(0));
    assert!(english.contains("<html lang=\"en\">"), "{english}");
    let is_chinese = |c: char| ('\u{4e00}'..'\u{9fff}').contains(&c);
    assert!(!english.contains(is_chinese), "{english}");
    let chinese = html(&accounts, Language::Chinese, &zone(), at(0));
    for part in
        ["<html lang=\"zh-CN\">", "2 个账号中有 2 个没有可用的 token", "怎么办", "剩余有效期"]
    {
        assert!(chinese.contains(part), "{part:?} is not in {chinese}");
    }
    assert!(!chinese.contains("What to do") && !chinese.contains("<span lang"), "{chinese}");
}

#[test]
fn the_page_says_who_refreshed_the_token_when_in_the_servers_zone_and_that_check_says_more() {
    let page = page_of(&[refreshed(account("shop", 3000), None)]);
    for part in
        ["by this server", "由本服务刷新", "UTC+8</time>", "title=\"2026-11-25 02:42:00 UTC\""]
    {
        assert!(page.contains(part), "{part:?} is not in {page}");
    }
    // Each value once.
    assert_eq!(page.matches("50 min").count(), 1, "{page}");
    let mut by_another = refreshed(account("shop", 3000), None);
    by_another.refresh.as_mut().unwrap().succeeded_at = Some(at(-6000));
    for account in [by_another, account("shop", 3000)] {
        let page = page_of(&[account]);
        assert!(page.contains("by <code>wxtoken fetch</code> or another host"), "{page}");
    }
    assert!(page.contains("<code>wxtoken check</code>"), "{page}");
    let page = page_of(&[account("mini", 3000), missing("shop")]);
    assert!(page.contains("<code>wxtoken check shop</code>"), "{page}");
}

#[test]
fn a_failed_hook_is_shown_and_a_good_one_is_not() {
    let with_hook = |failed_at| {
        let mut account = refreshed(account("shop", 7000), None);
        account.refresh.as_mut().unwrap().hook = Some(HookStatus { failed_at });
        page_of(&[account])
    };
    assert!(!with_hook(None).contains("on_change"));
    let page = with_hook(Some(at(-120)));
    assert!(page.contains("<dt>on_change</dt><dd>! "), "{page}");
    assert!(page.contains("failed, see the log") && page.contains("2 min ago"), "{page}");
    assert!(!page.contains("on_trouble"), "{page}");
    let mut ill = refreshed(account("shop", 7000), None);
    ill.refresh.as_mut().unwrap().trouble_hook = Some(HookStatus { failed_at: Some(at(-60)) });
    assert!(page_of(&[ill]).contains("<dt>on_trouble</dt><dd>! "));
}

#[test]
fn tickets_are_shown_and_a_tokens_trouble_outranks_a_tickets_in_the_headline() {
    let page = |account: AccountStatus| {
        page_of(&[account]).replace("<span lang=\"zh-CN\">", "").replace("</span>", "")
    };
    let shop = || refreshed(account("shop", 3000), None);
    for (account, class, words) in [
        (
            with_ticket(shop(), Some(3000), None),
            "well",
            &["All is well", "jsapi ticket", "✓ 50 min left 剩余 50 分钟", "71c4e700"][..],
        ),
        (
            with_ticket(shop(), None, Some(REFUSAL)),
            "wary",
            &[
                "The token is well, a ticket is not",
                "! none 没有",
                "ticket in trouble",
                "jsapi ticket: Last failure",
                "203.0.113.9 加入公众号",
            ],
        ),
        (
            with_ticket(shop(), Some(3000), Some(REFUSAL)),
            "wary",
            &["The token is well, a ticket is not", "! 50 min left", "jsapi ticket: Last failure"],
        ),
        (
            with_ticket(account("shop", 3000), Some(-60), None),
            "wary",
            &["! expired 已过期 · 1 min ago", "with the same config", "同一配置"],
        ),
        // The token's trouble is the greater.
        (
            with_ticket(missing("shop"), None, Some(REFUSAL)),
            "ill",
            &["No live token", "status</code> says which", "jsapi ticket: Last failure"],
        ),
    ] {
        let page = page(account);
        assert!(page.contains(&format!("<header class=\"{class}\"")), "{page}");
        for word in words {
            assert!(page.contains(word), "{word:?} is not in {page}");
        }
    }
}

#[test]
fn text_from_outside_is_escaped() {
    let evil = "</p><script>alert('1')</script>&\"\u{202e}\u{0}<img src=x onerror=alert(1)>";
    let mut account = refreshed(account(evil, 3000), Some(evil));
    account.appid = Some(evil.to_owned());
    account.token.published.as_mut().unwrap().fingerprint = evil.to_owned();
    account = with_ticket(account, Some(60), Some(evil));
    account.tickets[0].1.published.as_mut().unwrap().fingerprint = evil.to_owned();
    let page = page_of(&[account]);
    for outside in ["<script", "<img", "alert('", "\u{202e}", "\u{0}", "&\""] {
        assert!(!page.contains(outside), "{outside:?} is in {page}");
    }
    assert_eq!(
        page.matches("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;&quot;").count(),
        8
    );
}

#[test]
fn the_page_is_small_and_wants_nothing_from_elsewhere() {
    let accounts = ["shop", "branch"].map(|name| refreshed(account(name, 3000), Some(REFUSAL)));
    let page = page_of(&accounts);
    assert!(page.len() < 10 * 1024, "{} bytes", page.len());
    for outside in ["<script", "<link", "<iframe", "src=", "href=", "url(", "@import", "//"] {
        assert!(!page.contains(outside), "{outside:?} is in {page}");
    }
}

#[test]
fn a_bar_is_as_long_as_the_life_that_is_left() {
    for (left, width) in
        [(7200, "100.0%"), (1800, "25.0%"), (0, "0.0%"), (-9, "0.0%"), (99_999, "100.0%")]
    {
        let zone = zone();
        let reader = Reader { language: Language::Both, zone: &zone, now: at(0) };
        let bar = life(&document(left, "").published.unwrap(), false, &reader);
        assert!(bar.contains(&format!("width:{width}")), "{left}: {bar}");
    }
}

/// The colours that a block of the style defines, by their names.
fn colours(block: &str) -> BTreeMap<&str, [u8; 3]> {
    let definitions = block.split(';').filter_map(|definition| {
        let (name, value) = definition.trim().split_once(": #")?;
        let digits: String = match value.len() {
            3 => value.chars().flat_map(|digit| [digit, digit]).collect(),
            _ => value.to_owned(),
        };
        let channel = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        Some((name, [channel(0), channel(2), channel(4)]))
    });
    definitions.collect()
}

/// The colours by day and by night.
fn colour_schemes() -> [BTreeMap<&'static str, [u8; 3]>; 2] {
    let (_, day) = STYLE.split_once(":root {").unwrap();
    let (_, night) = day.split_once(":root {").unwrap();
    [day, night].map(|block| colours(block.split_once('}').unwrap().0))
}

/// How well one colour can be told from another, from 1 to 21, as WCAG 2 defines it.
fn contrast(one: [u8; 3], other: [u8; 3]) -> f64 {
    let luminance = |colour: [u8; 3]| {
        let [red, green, blue] = colour.map(|channel| match f64::from(channel) / 255.0 {
            dark if dark <= 0.04045 => dark / 12.92,
            light => ((light + 0.055) / 1.055).powf(2.4),
        });
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    };
    let (one, other) = (luminance(one) + 0.05, luminance(other) + 0.05);
    (one / other).max(other / one)
}

#[test]
fn the_state_and_the_text_can_be_read_by_day_and_by_night() {
    let [day, night] = colour_schemes();
    assert!(day.keys().eq(night.keys()), "each scheme defines all colours: {day:?} {night:?}");
    for colours in [day, night] {
        for (text, grounds) in [
            ("--ink", &["--ground", "--sheet", "--wary-tint", "--ill-tint"][..]),
            ("--soft", &["--ground", "--sheet", "--wary-tint", "--ill-tint"]),
            ("--well", &["--ground", "--sheet", "--on"]),
            ("--wary", &["--ground", "--sheet", "--on", "--wary-tint"]),
            ("--ill", &["--ground", "--sheet", "--on", "--ill-tint"]),
        ] {
            for ground in grounds {
                // WCAG's AA for text.
                let contrast = contrast(colours[text], colours[ground]);
                assert!(contrast >= 4.5, "{text} on {ground}: {contrast:.2}");
            }
        }
    }
}

#[test]
fn the_style_defines_all_that_the_page_and_the_style_use() {
    for name in STYLE.split("var(").skip(1).map(|rest| rest.split_once(')').unwrap().0) {
        assert!(STYLE.contains(&format!("{name}: ")), "{name}");
    }
    let accounts = [
        with_ticket(refreshed(account("a", 3000), None), Some(60), None),
        refreshed(account("b", 3000), Some(REFUSAL)),
        missing("c"),
    ];
    let page = page_of(&accounts);
    for class in page.split("class=\"").skip(1).map(|rest| rest.split_once('"').unwrap().0) {
        assert!(STYLE.contains(&format!(".{class} ")), "{class}");
    }
    for class in ["well", "wary", "ill"] {
        assert!(page.contains(&format!("<article class=\"{class}\">")), "{page}");
    }
}
