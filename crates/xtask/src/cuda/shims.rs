//! Static libraries that stand in for NVIDIA's shared ones when the server is linked, so that one binary starts with and
//! without a driver.
//!
//! The bindings that the engine uses want `-lcuda`, `-lcublas` and so on, and a binary linked with those shared libraries
//! does not start where they are missing. Each shim has the same functions, which jump through a table. A function's first call opens
//! the real library by its name and puts the real address into the table; where there is none, it puts a function there
//! that returns an error of that library, and the engine takes it as "no such device". Later calls cost one indirect jump.
//!
//! Which functions there are is read from the bindings themselves, so nothing here has to follow their versions.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A library to stand in for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Library {
    /// As the linker is asked for it: `-lNAME`.
    pub(super) name: &'static str,
    /// The folder of the bindings' sources that declares its functions.
    pub(super) folder: &'static str,
    /// The file that is opened at run time.
    pub(super) soname: &'static str,
    /// What functions return when that file is not there. It must be a value of the library's own enumeration.
    pub(super) absent: i32,
}

/// The libraries that candle's bindings link with. What they return is: `CUDA_ERROR_STUB_LIBRARY`, three times "not
/// initialised", and `NVRTC_ERROR_INTERNAL_ERROR`.
pub(super) const LIBRARIES: &[Library] = &[
    Library { name: "cuda", folder: "driver", soname: "libcuda.so.1", absent: 34 },
    Library { name: "cublas", folder: "cublas", soname: "libcublas.so.13", absent: 1 },
    Library { name: "cublasLt", folder: "cublaslt", soname: "libcublasLt.so.13", absent: 1 },
    Library { name: "curand", folder: "curand", soname: "libcurand.so.10", absent: 101 },
    Library { name: "nvrtc", folder: "nvrtc", soname: "libnvrtc.so.13", absent: 11 },
];

/// A function of a library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Function {
    name: String,
    gives: Gives,
}

/// What a function returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gives {
    /// A status, or nothing at all.
    Status,
    /// A text that the caller reads.
    Text,
    /// A number of which 0 says nothing.
    Size,
}

/// The functions that `source`, a file of bindings, declares, sorted, each once.
///
/// Foreign functions stand alone on a line there: `fn cuInit(Flags: c_uint) -> CUresult;`.
pub(super) fn functions(source: &str) -> Vec<Function> {
    let declared = source.lines().filter_map(|line| {
        let (name, rest) = line.trim().strip_prefix("fn ")?.strip_suffix(';')?.split_once('(')?;
        let gives = match rest.rsplit_once("->").map(|(_, kind)| kind.trim()) {
            Some(kind) if kind.starts_with('*') => Gives::Text,
            Some("usize") => Gives::Size,
            _ => Gives::Status,
        };
        (name.starts_with("cu") || name.starts_with("nvrtc")).then(|| Function { name: name.to_owned(), gives })
    });
    let mut functions: Vec<_> = declared.collect();
    functions.sort_by(|one, other| one.name.cmp(&other.name));
    functions.dedup_by(|one, other| one.name == other.name);
    functions
}

/// Writes `libNAME.a` with `functions` into `folder`.
///
/// # Errors
/// When the folder cannot be written or the C compiler or `ar` fails.
pub(super) fn write(library: &Library, functions: &[Function], folder: &Path) -> Result<PathBuf, String> {
    let cannot = |what: &Path| format!("cannot write {}", what.display());
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", cannot(folder)))?;
    let mut objects = Vec::new();
    for (ending, text) in [("c", resolver(library, functions)), ("S", trampolines(library, functions))] {
        let source = folder.join(format!("{}_shim.{ending}", library.name));
        fs::write(&source, text).map_err(|error| format!("{}: {error}", cannot(&source)))?;
        let object = folder.join(format!("{}_shim_{ending}.o", library.name));
        tool(Command::new("cc").args(["-c", "-O2", "-fPIC", "-Wall", "-Werror", "-o"]).arg(&object).arg(&source))?;
        objects.push(object);
    }
    let archive = folder.join(format!("lib{}.a", library.name));
    // `ar` adds to what is there.
    let _ = fs::remove_file(&archive);
    tool(Command::new("ar").arg("crs").arg(&archive).args(&objects))?;
    Ok(archive)
}

fn tool(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("failed: {command:?} ({status})")) }
}

/// C: finds the real function, or the one that says that there is none.
fn resolver(library: &Library, functions: &[Function]) -> String {
    let Library { name, soname, absent, .. } = library;
    let mut rows = String::new();
    for Function { name, gives } in functions {
        let otherwise = match gives {
            Gives::Status => "status",
            Gives::Text => "text",
            Gives::Size => "size",
        };
        let _ = writeln!(rows, "    {{\"{name}\", (void *){otherwise}}},");
    }
    format!(
        "\
#include <dlfcn.h>
#include <stddef.h>

__attribute__((unused)) static int status(void) {{ return {absent}; }}
__attribute__((unused)) static size_t size(void) {{ return 0; }}
__attribute__((unused)) static const char *text(void) {{ return \"{soname} is not there\"; }}

static const struct {{ const char *name; void *otherwise; }} functions[] = {{
{rows}}};

extern void *millrace_{name}_slots[] __attribute__((visibility(\"hidden\")));

__attribute__((visibility(\"hidden\"))) void *millrace_{name}_find(unsigned index) {{
    /* Threads that come together get the same handle and store the same address. */
    void *library = dlopen(\"{soname}\", RTLD_NOW | RTLD_LOCAL);
    void *found = library ? dlsym(library, functions[index].name) : NULL;
    if (!found) found = functions[index].otherwise;
    __atomic_store_n(&millrace_{name}_slots[index], found, __ATOMIC_RELEASE);
    return found;
}}
"
    )
}

/// Assembler for x86-64: the functions themselves, and the table, which at first leads to the resolver.
///
/// On the way to the resolver every register that may carry an argument is kept, `rax` included, which counts the vector
/// arguments of variadic functions; `r11` is free between a call and the called function.
fn trampolines(library: &Library, functions: &[Function]) -> String {
    let name = library.name;
    let integers = ["rax", "rdi", "rsi", "rdx", "rcx", "r8", "r9"];
    // 8 vector registers behind 7 integer ones, and the stack on a multiple of 16 where C is called.
    let frame = 8 * 8 + 8 * 16 - 8;
    let mut keep = String::new();
    let mut restore = String::new();
    for (index, register) in integers.iter().enumerate() {
        let place = index * 8;
        let _ = writeln!(keep, "    movq %{register}, {place}(%rsp)");
        let _ = writeln!(restore, "    movq {place}(%rsp), %{register}");
    }
    for register in 0..8 {
        let place = integers.len() * 8 + register * 16;
        let _ = writeln!(keep, "    movups %xmm{register}, {place}(%rsp)");
        let _ = writeln!(restore, "    movups {place}(%rsp), %xmm{register}");
    }
    let mut text = format!(
        "\
    .text
find:
    subq ${frame}, %rsp
{keep}    movl %r11d, %edi
    call millrace_{name}_find
    movq %rax, %r11
{restore}    addq ${frame}, %rsp
    jmp *%r11

    .macro shim function, index
    .globl \\function
    .type \\function, @function
\\function:
    jmp *millrace_{name}_slots+8*\\index(%rip)
    .size \\function, .-\\function
first\\index:
    movl $\\index, %r11d
    jmp find
    .endm

"
    );
    for (index, function) in functions.iter().enumerate() {
        let _ = writeln!(text, "    shim {}, {index}", function.name);
    }
    let _ = write!(
        text,
        "\n    .section .data.rel.local, \"aw\"\n    .balign 8\n    .hidden millrace_{name}_slots\n    .globl \
         millrace_{name}_slots\nmillrace_{name}_slots:\n"
    );
    for index in 0..functions.len() {
        let _ = writeln!(text, "    .quad first{index}");
    }
    text.push_str("    .section .note.GNU-stack, \"\", @progbits\n");
    text
}

#[cfg(test)]
mod tests;
