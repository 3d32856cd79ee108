// SPDX-License-Identifier: MIT
// The limit: waits for the event of one kind of drift and blindly asks for the same object again, in as few
// instructions as can be. No ownership, no comparing, no memory, no order of rules.
#include <arpa/inet.h>
#include <errno.h>
#include <linux/netconf.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char event[1 << 16], request[1 << 16], answer[1 << 16];
static unsigned wanted_mtu = 1500;

static int open_netlink(int protocol, int group)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK };
	int fd = socket(AF_NETLINK, SOCK_RAW, protocol), size = 1 << 22;

	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		perror("netlink");
		exit(1);
	}
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	if (group && setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof(group)) < 0) {
		perror("group");
		exit(1);
	}
	return fd;
}

static void ask(int fd, size_t length)
{
	static const struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };

	if (sendto(fd, request, length, 0, (const struct sockaddr *)&kernel, sizeof(kernel)) < 0)
		perror("send");
	ssize_t got = recv(fd, answer, sizeof(answer), 0);
	const struct nlmsghdr *head = (const void *)answer;
	if (got > 0 && head->nlmsg_type == NLMSG_ERROR && ((struct nlmsgerr *)NLMSG_DATA(head))->error)
		fprintf(stderr, "refused: %s\n", strerror(-((struct nlmsgerr *)NLMSG_DATA(head))->error));
}

// The message of the event itself, as a request for what it says has gone.
static size_t same_again(char *to, const struct nlmsghdr *gone, int type, int flags)
{
	struct nlmsghdr *head = (void *)to;

	memcpy(to, gone, gone->nlmsg_len);
	head->nlmsg_type = type;
	head->nlmsg_flags = NLM_F_REQUEST | flags;
	head->nlmsg_pid = 0;
	return NLMSG_ALIGN(gone->nlmsg_len);
}

static void *attribute(const struct nlmsghdr *head, size_t fixed, int type)
{
	struct nlattr *at = (void *)((char *)NLMSG_DATA(head) + NLMSG_ALIGN(fixed));
	char *end = (char *)head + head->nlmsg_len;

	while ((char *)at + NLA_HDRLEN <= end && at->nla_len >= NLA_HDRLEN) {
		if ((at->nla_type & NLA_TYPE_MASK) == type)
			return (char *)at + NLA_HDRLEN;
		at = (void *)((char *)at + NLA_ALIGN(at->nla_len));
	}
	return NULL;
}

static size_t batch_mark(char *to, int type)
{
	struct nlmsghdr *head = (void *)to;
	struct nfgenmsg *body = NLMSG_DATA(head);

	head->nlmsg_len = NLMSG_LENGTH(sizeof(*body));
	head->nlmsg_type = type;
	head->nlmsg_flags = NLM_F_REQUEST;
	head->nlmsg_seq = head->nlmsg_pid = 0;
	body->nfgen_family = AF_UNSPEC;
	body->version = NFNETLINK_V0;
	body->res_id = htons(NFNL_SUBSYS_NFTABLES);
	return NLMSG_ALIGN(head->nlmsg_len);
}

static void nft_again(int fd, const struct nlmsghdr *gone, int type, int without)
{
	size_t length = batch_mark(request, NFNL_MSG_BATCH_BEGIN);
	struct nlmsghdr *head = (void *)(request + length);
	void *handle;

	length += same_again((char *)head, gone, NFNL_SUBSYS_NFTABLES << 8 | type, NLM_F_CREATE | NLM_F_APPEND | NLM_F_ACK);
	if (without && (handle = attribute(head, sizeof(struct nfgenmsg), without))) {
		struct nlattr *at = (void *)((char *)handle - NLA_HDRLEN);
		size_t size = NLA_ALIGN(at->nla_len);
		char *after = (char *)at + size;

		memmove(at, after, (char *)head + NLMSG_ALIGN(head->nlmsg_len) - after);
		head->nlmsg_len -= size;
		length -= size;
	}
	length += batch_mark(request + length, NFNL_MSG_BATCH_END);
	ask(fd, length);
}

static void link_again(int fd, int index)
{
	struct nlmsghdr *head = (void *)request;
	struct ifinfomsg *body = NLMSG_DATA(head);
	struct nlattr *at = (void *)((char *)body + NLMSG_ALIGN(sizeof(*body)));

	memset(request, 0, 64);
	body->ifi_index = index;
	at->nla_type = IFLA_MTU;
	at->nla_len = NLA_HDRLEN + 4;
	memcpy((char *)at + NLA_HDRLEN, &wanted_mtu, 4);
	head->nlmsg_len = NLMSG_LENGTH(sizeof(*body)) + NLA_ALIGN(at->nla_len);
	head->nlmsg_type = RTM_NEWLINK;
	head->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	ask(fd, head->nlmsg_len);
}

static void key_again(int index)
{
	char name[IF_NAMESIZE], path[128];
	int fd;

	if (!if_indextoname(index, name))
		return;
	snprintf(path, sizeof(path), "/proc/sys/net/ipv4/conf/%s/rp_filter", name);
	if ((fd = open(path, O_WRONLY)) < 0 || write(fd, "1", 1) != 1)
		perror(path);
	close(fd);
}

int main(int count, char **words)
{
	int nft = count > 2 && !strcmp(words[1], "nft");

	if (count != 3 || (!nft && strcmp(words[1], "rtnl"))) {
		fprintf(stderr, "usage: limit rtnl|nft GROUP\n");
		return 2;
	}
	int protocol = nft ? NETLINK_NETFILTER : NETLINK_ROUTE;
	int events = open_netlink(protocol, atoi(words[2])), requests = open_netlink(protocol, 0);

	for (;;) {
		ssize_t got = recv(events, event, sizeof(event), 0);
		struct nlmsghdr *head = (void *)event;

		for (; got > 0 && NLMSG_OK(head, got); head = NLMSG_NEXT(head, got)) {
			switch (head->nlmsg_type) {
			case RTM_DELROUTE:
				if (((struct rtmsg *)NLMSG_DATA(head))->rtm_protocol == RTPROT_KERNEL)
					break;
				/* fall through */
			case RTM_DELADDR:
			case RTM_DELRULE:
				ask(requests, same_again(request, head, head->nlmsg_type - 1,
							 NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK));
				break;
			case RTM_NEWLINK: {
				unsigned *mtu = attribute(head, sizeof(struct ifinfomsg), IFLA_MTU);
				if (mtu && *mtu != wanted_mtu)
					link_again(requests, ((struct ifinfomsg *)NLMSG_DATA(head))->ifi_index);
				break;
			}
			case RTM_NEWNETCONF: {
				int *value = attribute(head, sizeof(struct netconfmsg), NETCONFA_RP_FILTER);
				int *index = attribute(head, sizeof(struct netconfmsg), NETCONFA_IFINDEX);
				if (value && index && *value == 0)
					key_again(*index);
				break;
			}
			case NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELRULE:
				nft_again(requests, head, NFT_MSG_NEWRULE, NFTA_RULE_HANDLE);
				break;
			case NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELSETELEM:
				nft_again(requests, head, NFT_MSG_NEWSETELEM, 0);
				break;
			}
		}
	}
}
