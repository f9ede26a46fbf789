//! What is wrong with an address that a user has written. No text repeats it: it may hold a secret.

use crate::message::texts;

texts! {
    // Base URLs.
    NO_URL =
        "Write a URL, like https://api.weixin.qq.com: this is not one",
        "请填写 URL，如 https://api.weixin.qq.com：格式不对";
    CLEARTEXT =
        "Write https://: the AppSecret would cross the network in clear (http:// is for loopback only)",
        "请使用 https://：否则 AppSecret 会在网络上明文传输（http:// 只能用于本机）";
    CLEARTEXT_TO_WXTOKEN =
        "Write https://: key and token would cross the network in clear (http:// is for loopback only)",
        "请使用 https://：否则访问密钥与 token 会在网络上明文传输（http:// 只能用于本机）";
    NO_HTTPS =
        "Begin it with https://: it has another scheme, or none",
        "请以 https:// 开头：没有协议，或协议不对";
    NO_HOST =
        "Write the host: it has none",
        "请填写主机名：其中没有主机名";
    NO_PORT =
        "Write a port of 1 to 65535, or none: it has something else in its place",
        "请填写 1 至 65535 的端口，或留空：端口不对";
    HAS_USER =
        "Leave out user and password: it has one",
        "请去掉用户名和密码：其中含有";
    HAS_QUERY =
        "Leave out ? and #: it has a query or a fragment",
        "请去掉 ? 和 # 部分：其中含有";

    // Proxies.
    NO_PROXY =
        "Write a proxy's address, like http://proxy:3128: this is not one",
        "请填写代理地址，如 http://proxy:3128：格式不对";
    PROXY_LIKE_SECRET =
        "Write a proxy's address, like http://proxy:3128: its host has the form of an AppSecret",
        "请填写代理地址，如 http://proxy:3128：主机部分形似 AppSecret";

    // Redis.
    NO_REDIS =
        "Write a Redis, like redis://host:6379, rediss://host, redis+unix:///run/redis.sock or \
         redis+sentinel://host1,host2/mymaster: this is not one",
        "请填写 Redis 地址，如 redis://host:6379、rediss://host、redis+unix:///run/redis.sock 或 \
         redis+sentinel://host1,host2/mymaster：格式不对";
    REDIS_LIKE_SECRET =
        "Give the host's short name or its address: there is something in it that may be a secret",
        "请填写主机的短名或地址：其中有形似密钥的内容";
    REDIS_PASSWORD =
        "Put the password into a file with mode 0600, and name that in [redis] password_file: it has no place here",
        "请把密码存入权限 0600 的文件，并用 [redis] password_file 指定：不应写在这里";
    NO_MASTER =
        "End it in /mymaster: it does not say which master the sentinels are asked for",
        "请以 /mymaster 结尾：没有写明向 sentinel 查询哪个 master";
    INVALID_MASTER =
        "Correct the master's name: it has letters, digits, '-', '.' and '_' alone",
        "请更正 master 的名称：只能含字母、数字、-、. 和 _";
    NO_SOCKET =
        "Write a socket's absolute path, like redis+unix:///run/redis/redis.sock: this is not one",
        "请填写套接字的绝对路径，如 redis+unix:///run/redis/redis.sock：格式不对";
    NO_DATABASE =
        "Write the number of a database behind the host, or nothing: there is something else",
        "主机后请填写数据库编号，或留空：内容不对";

    // Where serve listens, and how it is called.
    NO_LISTEN =
        "Write ADDRESS:PORT, [ADDRESS]:PORT or unix:PATH: this is none of them",
        "请填写 ADDRESS:PORT、[ADDRESS]:PORT 或 unix:PATH：格式不对";
    NO_LISTEN_PATH =
        "Write the socket's absolute path, like unix:/run/wxtoken/wxtoken.sock: this does not begin with /",
        "请填写套接字的绝对路径，如 unix:/run/wxtoken/wxtoken.sock：没有以 / 开头";
    NO_SERVER_NAME =
        "Write a host name without a port, like token.example.com: this is not one",
        "请填写不带端口的主机名，如 token.example.com：格式不对";

    // Addresses and networks.
    NO_NETWORK =
        "Write an address or a network, like 10.1.2.3 or 10.0.0.0/8: this is not one",
        "请填写地址或网段，如 10.1.2.3 或 10.0.0.0/8：格式不对";
    NO_PREFIX_LENGTH =
        "Write a prefix length of 0 to 32, or to 128 for IPv6: this is not one",
        "请填写 0 至 32 的前缀长度，IPv6 至 128：长度不对";
}
