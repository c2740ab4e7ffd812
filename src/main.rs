//! The program: hands the arguments to `cli` and its answer to the shell.

fn main() -> std::process::ExitCode {
    // candle adds a backtrace to an error's text if the environment asks for one. Errors are sentences for the user;
    // backtraces are for bugs, which are panics and keep theirs.
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var("RUST_LIB_BACKTRACE", "0") };
    laptop_diff::backend::memory::keep_freed();
    laptop_diff::cli::main()
}
