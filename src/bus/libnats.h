/* libnats.h: the C client of NATS, loaded when the first connection is made: a program that stays
 * on one machine needs neither it nor the TLS library that it brings, and does not wait for them.
 *
 * Only nats.c may include this. Threads: any. Source: https://nats-io.github.io/nats.c */
#ifndef TD_BUS_LIBNATS_H
#define TD_BUS_LIBNATS_H

#include <nats/nats.h>

struct td_error;

/* clang-format off */
#define TD_LIBNATS_FUNCTIONS(F)                                                                  \
    F(natsConnection_Connect) F(natsConnection_Destroy) F(natsConnection_GetConnectedServerId)   \
    F(natsConnection_GetLastError) F(natsConnection_GetMaxPayload) F(natsConnection_PublishMsg)  \
    F(natsConnection_Subscribe)                                                                  \
    F(natsMsg_Create) F(natsMsg_Destroy) F(natsMsg_GetData) F(natsMsg_GetDataLength)             \
    F(natsMsg_GetReply) F(natsMsg_GetSubject) F(natsMsgHeader_Get) F(natsMsgHeader_Set)          \
    F(natsOptions_Create) F(natsOptions_Destroy) F(natsOptions_SetAllowReconnect)                \
    F(natsOptions_SetClosedCB) F(natsOptions_SetDisconnectedCB) F(natsOptions_SetErrorHandler)   \
    F(natsOptions_SetIgnoreDiscoveredServers) F(natsOptions_SetMaxPingsOut)                      \
    F(natsOptions_SetMaxReconnect) F(natsOptions_SetName) F(natsOptions_SetPingInterval)         \
    F(natsOptions_SetReconnectJitter) F(natsOptions_SetReconnectWait)                            \
    F(natsOptions_SetReconnectedCB) F(natsOptions_SetSendAsap) F(natsOptions_SetTimeout)         \
    F(natsOptions_SetToken) F(natsOptions_SetURL) F(natsOptions_SetUserCredentialsFromFiles)     \
    F(natsOptions_SetUserInfo) F(natsOptions_SetWriteDeadline) F(natsStatus_GetText)             \
    F(natsSubscription_Destroy) F(natsSubscription_GetDropped)                                   \
    F(natsSubscription_SetOnCompleteCB) F(natsSubscription_SetPendingLimits)
/* clang-format on */

struct td_libnats {
#define TD_LIBNATS_MEMBER(function) __typeof__(function) *function;
    TD_LIBNATS_FUNCTIONS(TD_LIBNATS_MEMBER)
#undef TD_LIBNATS_MEMBER
};

extern struct td_libnats td_libnats; /* after td_libnats_load */

/* TD_ENOTFOUND: it is not installed, or too old; *err says what to do. Again: the same answer. */
int td_libnats_load(struct td_error *err);

#endif
