
/*
 * For other_nginx.t: makes this nginx look like one with other structures, as far
 * as a module can see it.
 *
 *     other_nginx NAME           the value of each directive NAME lies elsewhere
 *     other_nginx connections    connections are larger
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>


static char *other_nginx(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static ngx_int_t other_init_process(ngx_cycle_t *cycle);


static ngx_uint_t  other_connections;


static ngx_command_t  other_commands[] = {

    { ngx_string("other_nginx"),
      NGX_MAIN_CONF|NGX_DIRECT_CONF|NGX_CONF_TAKE1,
      other_nginx,
      0,
      0,
      NULL },

      ngx_null_command
};


static ngx_core_module_t  other_ctx = {
    ngx_string("other_nginx"), NULL, NULL
};


ngx_module_t  other_nginx_module = {
    NGX_MODULE_V1,
    &other_ctx,
    other_commands,
    NGX_CORE_MODULE,
    NULL,
    NULL,
    other_init_process,
    NULL,
    NULL,
    NULL,
    NULL,
    NGX_MODULE_V1_PADDING
};


ngx_module_t *ngx_modules[] = { &other_nginx_module, NULL };
char *ngx_module_names[] = { "other_nginx_module", NULL };
char *ngx_module_order[] = {
    "other_nginx_module", "ngx_http_upstream_sliced_keepalive_module", NULL
};


static char *
other_nginx(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t      *value = cf->args->elts;
    ngx_uint_t      i;
    ngx_command_t  *c;

    if (ngx_strcmp(value[1].data, "connections") == 0) {
        other_connections = 1;
        return NGX_CONF_OK;
    }

    for (i = 0; cf->cycle->modules[i]; i++) {
        for (c = cf->cycle->modules[i]->commands; c && c->name.len; c++) {
            if (c->name.len == value[1].len
                && ngx_strcmp(c->name.data, value[1].data) == 0)
            {
                c->offset += sizeof(void *);
            }
        }
    }

    return NGX_CONF_OK;
}


static ngx_int_t
other_init_process(ngx_cycle_t *cycle)
{
    if (other_connections) {
        cycle->connections[1].read++;
    }

    return NGX_OK;
}
