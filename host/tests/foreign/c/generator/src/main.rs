//! The C generator of wit-bindgen: `generate WIT WORLD FOLDER`. Its own command line takes ten times as long to build.

use std::{env, error::Error, fs, path::Path};

use wit_bindgen_core::Files;
use wit_bindgen_core::wit_parser::Resolve;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [wit, world, folder] = arguments.as_slice() else { return Err("usage: generate WIT WORLD FOLDER".into()) };

    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(wit)?;
    let world = resolve.select_world(&[package], Some(world))?;
    let mut files = Files::default();
    wit_bindgen_c::Opts::default().build().generate(&mut resolve, world, &mut files)?;
    for (name, contents) in files.iter() {
        fs::write(Path::new(folder).join(name), contents)?;
    }
    Ok(())
}
