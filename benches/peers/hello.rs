//! What a program costs that does nothing: built with the same compiler, std and shared libraries as wxtoken.

fn main() {
    println!("hello");
}
