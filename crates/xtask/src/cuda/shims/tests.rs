use std::fs;
use std::process::Command;

use super::{Function, Gives, Library, functions, write};

fn names(functions: &[Function]) -> Vec<(&str, Gives)> {
    functions.iter().map(|function| (function.name.as_str(), function.gives)).collect()
}

#[test]
fn foreign_functions_are_found_once_with_what_they_give() {
    let source = "
pub unsafe fn cuInit(Flags: ::core::ffi::c_uint) -> CUresult {
        extern \"C\" {
            fn cuInit(Flags: ::core::ffi::c_uint) -> CUresult;
            fn cuInit(Flags: ::core::ffi::c_uint) -> CUresult;
            fn cublasXerbla(srName: *const ::core::ffi::c_char, info: ::core::ffi::c_int) ;
            fn cublasGetCudartVersion() -> usize;
            fn cublasGetStatusName(status: cublasStatus_t) -> *const ::core::ffi::c_char;
            fn other(f: unsafe extern \"C\" fn() -> usize) -> CUresult;
            fn cuLaunchHostFunc(fn_: Option<unsafe extern \"C\" fn(data: *mut c_void) -> usize>) -> CUresult;
";
    let expected = [
        ("cuInit", Gives::Status),
        ("cuLaunchHostFunc", Gives::Status),
        ("cublasGetCudartVersion", Gives::Size),
        ("cublasGetStatusName", Gives::Text),
        ("cublasXerbla", Gives::Status),
    ];
    assert_eq!(names(&functions(source)), expected);
}

/// A program over shims: `snprintf` of the C library stands for a library that is there, and takes its arguments in integer
/// registers, in vector registers and on the stack.
#[cfg(target_arch = "x86_64")]
#[test]
fn calls_reach_the_real_library_or_say_that_it_is_absent() {
    const MAIN: &str = "
        #include <stddef.h>
        #include <string.h>
        int snprintf(char *text, size_t room, const char *format, ...);
        int cuNone(int one);
        const char *cuNoneText(void);
        size_t cuNoneSize(void);
        int main(void) {
            char text[128];
            for (int turn = 0; turn < 2; turn++) {
                int n = snprintf(text, sizeof text, \"%d %d %d %d %d %g %g %g %g %g %g %g %g %g\", 1, 2, 3, 4, 5,
                                 .5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 8.5);
                if (strcmp(text, \"1 2 3 4 5 0.5 1.5 2.5 3.5 4.5 5.5 6.5 7.5 8.5\") || n != 45) return 1;
                if (cuNone(5) != 34) return 2;
                if (strcmp(cuNoneText(), \"libmillrace_none.so.1 is not there\")) return 3;
                if (cuNoneSize() != 0) return 4;
            }
            return 0;
        }";
    let function = |name: &str, gives| Function { name: name.to_owned(), gives };
    let there = Library { name: "there", folder: "", soname: "libc.so.6", absent: 1 };
    let none = Library { name: "none", folder: "", soname: "libmillrace_none.so.1", absent: 34 };
    let folder = std::env::temp_dir().join(format!("millrace-shims-{}", std::process::id()));
    let archives = [
        write(&there, &[function("snprintf", Gives::Status)], &folder).unwrap(),
        write(
            &none,
            &[
                function("cuNone", Gives::Status),
                function("cuNoneText", Gives::Text),
                function("cuNoneSize", Gives::Size),
            ],
            &folder,
        )
        .unwrap(),
    ];
    let source = folder.join("main.c");
    let program = folder.join("main");
    fs::write(&source, MAIN).unwrap();
    let linked =
        Command::new("cc").args(["-O1", "-fno-builtin", "-o"]).arg(&program).arg(&source).args(&archives).status();
    assert!(linked.unwrap().success());
    let ran = Command::new(&program).status().unwrap();
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(ran.code(), Some(0));
}
