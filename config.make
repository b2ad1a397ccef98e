# The rule by which nginx's make has cargo build the module. It runs in nginx's source
# folder, and NGX_OBJS is relative to that unless --builddir is absolute. The paths that
# the compiler notes down are the same wherever the sources lie; the last match counts.
# On a system with musl, a program of Rust has the C library in it and cannot load libclang,
# as build scripts do, unless Rust is told otherwise; with glibc, it never has.

cat << END                                                    >> $NGX_MAKEFILE

$ngx_sliced_keepalive_lib:	$NGX_MAKEFILE \\
	`find $ngx_addon_dir/src $ngx_addon_dir/Cargo.toml $ngx_addon_dir/Cargo.lock \
          $ngx_addon_dir/build.rs $ngx_addon_dir/build_layout.rs -type f | tr '\n' ' '`
	root=\`pwd\` && objs=\`cd $NGX_OBJS && pwd\` && cd $ngx_addon_dir && \\
	flags="-C target-feature=-crt-static" && \\
	flags="\$\$flags --remap-path-prefix=\$\${CARGO_HOME:-\$\$HOME/.cargo}=/cargo" && \\
	flags="\$\$flags --remap-path-prefix=\$\$(pwd)=." && \\
	flags="\$\$flags --remap-path-prefix=\$\$objs/$ngx_addon_name=./target" && \\
	env -u CARGO_BUILD_TARGET NGINX_SOURCE_DIR=\$\$root NGINX_BUILD_DIR=\$\$objs \\
	RUSTFLAGS="\$\$RUSTFLAGS \$\$flags" \\
	${NGX_CARGO:-cargo} rustc --release --locked --lib --crate-type staticlib \\
		--no-default-features --target-dir \$\$objs/ngx_http_upstream_sliced_keepalive_module
	touch $ngx_sliced_keepalive_lib

END
