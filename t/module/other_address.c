
/*
 * For other_address.t: in an upstream, "other_address ADDRESS;" has all
 * requests go to this address, whatever the servers of the upstream are, as the
 * modules do in which scripts choose the server.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


static char *other_address(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
static ngx_int_t other_init_upstream(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *us);
static ngx_int_t other_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);
static ngx_int_t other_get_peer(ngx_peer_connection_t *pc, void *data);


static ngx_url_t                        other_url;
static ngx_http_upstream_init_peer_pt   other_original_init;
static ngx_event_get_peer_pt            other_original_get;


static ngx_command_t  other_commands[] = {

    { ngx_string("other_address"),
      NGX_HTTP_UPS_CONF|NGX_CONF_TAKE1,
      other_address,
      NGX_HTTP_SRV_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  other_ctx;


ngx_module_t  other_address_module = {
    NGX_MODULE_V1,
    &other_ctx,
    other_commands,
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


ngx_module_t *ngx_modules[] = { &other_address_module, NULL };
char *ngx_module_names[] = { "other_address_module", NULL };
char *ngx_module_order[] = { NULL };


static char *
other_address(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t                     *value;
    ngx_http_upstream_srv_conf_t  *uscf;

    value = cf->args->elts;
    other_url.url = value[1];

    if (ngx_parse_url(cf->pool, &other_url) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    uscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_upstream_module);
    uscf->peer.init_upstream = other_init_upstream;

    return NGX_CONF_OK;
}


static ngx_int_t
other_init_upstream(ngx_conf_t *cf, ngx_http_upstream_srv_conf_t *us)
{
    if (ngx_http_upstream_init_round_robin(cf, us) != NGX_OK) {
        return NGX_ERROR;
    }

    other_original_init = us->peer.init;
    us->peer.init = other_init_peer;

    return NGX_OK;
}


static ngx_int_t
other_init_peer(ngx_http_request_t *r, ngx_http_upstream_srv_conf_t *us)
{
    if (other_original_init(r, us) != NGX_OK) {
        return NGX_ERROR;
    }

    other_original_get = r->upstream->peer.get;
    r->upstream->peer.get = other_get_peer;

    return NGX_OK;
}


static ngx_int_t
other_get_peer(ngx_peer_connection_t *pc, void *data)
{
    ngx_int_t  rc;

    rc = other_original_get(pc, data);

    pc->sockaddr = other_url.addrs[0].sockaddr;
    pc->socklen = other_url.addrs[0].socklen;
    pc->name = &other_url.addrs[0].name;

    return rc;
}
