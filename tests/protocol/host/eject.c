/* eject DEVICE: opens the tray of a CD-ROM drive; eject -t DEVICE: shuts it. */
#include <fcntl.h>
#include <linux/cdrom.h>
#include <stdio.h>
#include <sys/ioctl.h>

int main(int count, char** words) {
  const int fd = open(words[count - 1], O_RDONLY | O_NONBLOCK);
  if (fd >= 0 && ioctl(fd, count > 2 ? CDROMCLOSETRAY : CDROMEJECT, 0) == 0) return 0;
  perror(words[count - 1]);
  return 1;
}
