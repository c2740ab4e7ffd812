//! The program: hands the arguments to `cli` and its answer to the shell.

fn main() -> std::process::ExitCode {
    laptop_diff::backend::memory::keep_freed();
    laptop_diff::cli::main()
}
