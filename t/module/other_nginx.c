
/*
 * For other_nginx.t: makes this nginx look like one with other structures, as far
 * as a module can see it.
 *
 *     other_nginx NAME           the value of each directive NAME lies elsewhere, or
 *                                of the variable NAME of a request
 *     other_nginx connections    connections are larger
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_http.h>


static char *other_nginx(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static ngx_int_t other_init_process(ngx_cycle_t *cycle);
static ngx_int_t other_preconfiguration(ngx_conf_t *cf);


static ngx_uint_t  other_connections;
static ngx_str_t   other_name;


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


static ngx_http_module_t  other_http_ctx = {
    other_preconfiguration, NULL, NULL, NULL, NULL, NULL, NULL, NULL
};


ngx_module_t  other_nginx_http_module = {
    NGX_MODULE_V1,
    &other_http_ctx,
    NULL,
    NGX_HTTP_MODULE,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL,
    NGX_MODULE_V1_PADDING
};


ngx_module_t *ngx_modules[] = {
    &other_nginx_module, &other_nginx_http_module, NULL
};
char *ngx_module_names[] = {
    "other_nginx_module", "other_nginx_http_module", NULL
};
char *ngx_module_order[] = {
    "other_nginx_module", "other_nginx_http_module",
    "ngx_http_upstream_sliced_keepalive_module", NULL
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

    other_name = value[1];

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


static ngx_int_t
other_preconfiguration(ngx_conf_t *cf)
{
    ngx_uint_t                  i;
    ngx_hash_key_t             *key;
    ngx_http_variable_t        *v;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);
    key = cmcf->variables_keys->keys.elts;

    for (i = 0; i < cmcf->variables_keys->keys.nelts; i++) {
        if (key[i].key.len == other_name.len
            && ngx_strncmp(key[i].key.data, other_name.data, other_name.len)
               == 0)
        {
            v = key[i].value;
            v->data += sizeof(void *);
        }
    }

    return NGX_OK;
}
