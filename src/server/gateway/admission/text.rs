//! Why a call is not passed on, and what to do about it: the texts.

use crate::message::texts;

texts! {
    BAD_PATH =
        "Ask for the path as WeChat documents it: this one has a character or a form that no API of WeChat has, such \
         as %, //, /., ; or a slash at its end.",
        "请按微信文档填写路径：当前路径含有微信接口没有的字符或形式，如 %、//、/.、; 或末尾的斜杠。";
    NO_SUCH_PATH =
        "Ask for a path of WeChat's API, such as /cgi-bin/menu/get, also behind /gateway/ACCOUNT: the gateway passes \
         on no other.",
        "请使用微信接口的路径，如 /cgi-bin/menu/get，前面可加 /gateway/ACCOUNT：网关不转发其他路径。";
    MAKES_TOKENS =
        "Ask this server for the token, at /cgi-bin/token, stable_token or gettoken, and WeChat for one of another \
         account: a call that makes a token or takes a secret is not passed on.",
        "请向本服务器的 /cgi-bin/token、stable_token 或 gettoken 领取 token，其他账号的请向微信获取：获取 token 或需要 \
         AppSecret 的接口不予转发。";
    SHOWS_REQUESTS =
        "Send the call to WeChat directly: its answer shows an earlier request with its token, whichever client made it.",
        "请直接请求微信：该接口会返回此前的请求及其 token，无论由哪个客户端发出。";
    SIGNED_WITH_TOKEN =
        "Send the call to WeChat directly: it is signed with the token, which the gateway cannot replace.",
        "请直接请求微信：该接口用 token 签名，网关无法替换。";
    AMBIGUOUS_TOKEN =
        "Send access_token once: the query has more than one token, or access_token in capitals.",
        "请只携带一个 access_token：查询参数里有多个 token，或使用了大写。";
    AMBIGUOUS_ACCOUNT =
        "Send from_appid once: the query has it more than once.",
        "请只携带一个 from_appid：查询参数里有多个。";
    SEVERAL_AUTHORIZATIONS =
        "Send one Authorization header: the request has more than one.",
        "请只发送一个 Authorization 请求头：当前有多个。";
    KEY_IN_QUERY =
        "Send the key as Authorization: Bearer KEY: a key of wxtoken stands in the query, and is not passed on to \
         WeChat.",
        "请用请求头 Authorization: Bearer 访问密钥：wxtoken 的访问密钥出现在查询参数里，不会转发给微信。";
    UNKNOWN_KEY =
        "Send the key as `wxtoken key` made it, or get a new one: this one is not in the server's keys file.",
        "请核对访问密钥是否完整，或重新生成：服务器的访问密钥文件里没有它。";
    BASIC_KEY =
        "Send the key as Authorization: Bearer KEY: Authorization: Basic is what a browser sends by itself, and opens the \
         status page, no calls.",
        "请用请求头 Authorization: Bearer 访问密钥：Authorization: Basic 会由浏览器自动发送，只用于状态页，不能调用接口。";
    NO_TOKEN =
        "Send Authorization: Bearer KEY: the call has neither an access_token nor a key. On the server, `wxtoken key \
         NAME` makes one.",
        "请携带请求头 Authorization: Bearer 访问密钥：请求既无 access_token 也无访问密钥，可在服务器上用 `wxtoken key \
         NAME` 生成。";
    NOT_LOCAL =
        "Send a key, which `wxtoken key NAME` makes on the server: a call without an access_token needs one, except \
         from the server itself.",
        "请携带访问密钥，可在服务器上用 `wxtoken key NAME` 生成：除服务器本机外，不带 access_token 的请求需要它。";
    FOREIGN_WITHOUT_KEY =
        "Send Authorization: Bearer KEY, or make the call to WeChat directly: its token is none of this server's, so \
         a key is needed.",
        "请携带请求头 Authorization: Bearer 访问密钥，或直接请求微信：请求中的 token 不由本服务器管理，需要访问密钥。";
    UNKNOWN_TOKEN =
        "Ask for the access_token again at /cgi-bin/token of this server, or send Authorization: Bearer KEY instead: \
         this one is not handed out to you, or not any more.",
        "请重新向本服务器的 /cgi-bin/token 领取 access_token，或改用请求头 Authorization: Bearer 访问密钥：\
         该 access_token 不是发给您的，或已停用。";
    FORBIDDEN_ACCOUNT =
        "On the server, add your address to the account's allow: it is not allowed to use this account.",
        "请在服务器上把您的地址加入该账号的 allow：您的地址无权使用该账号。";
    NO_SUCH_ACCOUNT =
        "Check the account's name, and which accounts the key is for: there is no such account for you here. \
         `wxtoken status` on the server lists them.",
        "请核对账号名，以及访问密钥适用的账号：没有这个账号，或您的访问密钥不能用于它。服务器上的 `wxtoken status` 会列出所有账号。";
    WHICH_ACCOUNT =
        "Name the account, by from_appid=APPID in the query or /gateway/ACCOUNT before the path: there are several \
         accounts here.",
        "请指明账号：在查询参数中加 from_appid=APPID，或在路径前加 /gateway/ACCOUNT：此处有多个账号。";
    ADMINISTRATION =
        "Use a key that names this path, made by `wxtoken key --apis PATH NAME` on the server: the call deletes, \
         resets, pays or cannot be called back.",
        "请使用写明该路径的访问密钥，在服务器上用 `wxtoken key --apis PATH NAME` 生成：该接口会删除、重置、付款或不可撤回。";
    FORBIDDEN_API =
        "On the server, add the path to the key's line in the keys file: your key is for other APIs.",
        "请在服务器上把该路径加入访问密钥文件中您的那一行：您的访问密钥只能调用其他接口。";
}
