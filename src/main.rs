//! The program: hands the arguments to `cli` and its answer to the shell.

fn main() -> std::process::ExitCode {
    laptop_diff::cli::main()
}
