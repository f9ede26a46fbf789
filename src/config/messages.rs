//! What is said about a command line and a config that do not go together.

use crate::message::messages;

messages! {
    NO_CONFIG<0> {
        "Give --config, or leave ACCOUNT out.",
        "ACCOUNT is the name of an account in a config, and there is none";
        "请用 --config 指定配置，或去掉 ACCOUNT。", "ACCOUNT 是配置中的账号名，而当前没有配置";
    }
    WHICH_ACCOUNT<2> {
        "Name the ACCOUNT.", "which ACCOUNT? {0} has {1}";
        "请写明 ACCOUNT。", "{0} 中有多个账号：{1}";
    }
    TWO_SECRETS<2> {
        "Unset one of them.", "{0} and {1} both say what the AppSecret is";
        "请只保留一个。", "{0} 与 {1} 都指定了 AppSecret";
    }
    NEEDS_APPID<2> {
        "Say it in {1}, or give --appid.", "{0} with --appid, and the accounts are those of {1}";
        "请写在 {1} 中，或给出 --appid。", "{0} 须与 --appid 一起使用，而当前账号来自 {1}";
    }
    OTHER_ACCOUNT<3> {
        "Unset what is not meant.", "{0}: this is another account than those of {1}, which {2} names";
        "请去掉不需要的一项。", "{0}：与 {2} 指定的 {1} 中的账号不是同一个";
    }
    UNKNOWN_ACCOUNT<3> {
        "Correct the name.", "there is no account {0} in {1}; {2}";
        "请更正账号名。", "{1} 中没有账号 {0}；{2}";
    }
    NO_PLACE<0> {
        "Give --dir.", "cannot tell where documents are published: HOME is not set";
        "请给出 --dir。", "未设置 HOME，无法确定 token 文件的目录";
    }
    DIR_UNUSED<1> {
        "Leave --dir out.", "--dir has no meaning here: in {0} each account that is meant has a file of its own";
        "请去掉 --dir。", "--dir 在此无效：{0} 中所选账号均有各自的 file";
    }
    NOT_IN_DIR<3> {
        "Unset the variable, or leave out --dir.", "{0} {1} is not in --dir {2}";
        "请取消设置该变量，或去掉 --dir。", "{0} {1} 不在 --dir {2} 中";
    }
    SHARED_DOCUMENT<2> {
        "Give each account a file of its own.", "its document {0} is account {1}'s, too";
        "请为每个账号指定各自的 file。", "其 token 文件 {0} 也属于账号 {1}";
    }
    NOT_UTF8<0> {
        "Save the file as UTF-8.", "this is not UTF-8";
        "请将文件保存为 UTF-8。", "不是 UTF-8";
    }
}
